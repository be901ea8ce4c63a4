"""Putting something around a module's own hooks, and taking it away again."""

import functools
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule

_MARK = "_wrapped_for_growth"


class WrappedHooks:
    """Hooks of one module instance that are called through something else for a while."""

    def __init__(self) -> None:
        self._module: LightningModule | None = None
        self._names: list[str] = []

    def wrap(self, module: LightningModule, name: str, around: Callable[..., Any]) -> None:
        """Call ``around(original, *args, **kwargs)`` in place of the hook ``name``.

        What an earlier fit left wrapped, because it failed, is unwrapped before.
        """
        if hasattr(vars(module).get(name), _MARK):
            delattr(module, name)
        original = getattr(module, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        setattr(wrapped, _MARK, True)
        setattr(module, name, wrapped)
        self._module = module
        self._names.append(name)

    def restore(self) -> None:
        """Give the module its own hooks back."""
        for name in self._names:
            vars(self._module).pop(name, None)
        self._module, self._names = None, []
