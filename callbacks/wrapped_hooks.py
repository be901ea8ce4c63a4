"""Putting something around a module's own hooks, and taking it away again."""

import functools
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule


class WrappedHooks:
    """Hooks of one module instance that are called through something else for a while."""

    def __init__(self) -> None:
        self._module: LightningModule | None = None
        self._names: list[str] = []

    def wrap(self, module: LightningModule, name: str, around: Callable[..., Any]) -> None:
        """Call ``around(original, *args, **kwargs)`` in place of the hook ``name``."""
        original = getattr(module, name)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        setattr(module, name, wrapped)
        self._module = module
        self._names.append(name)

    def restore(self) -> None:
        """Give the module its own hooks back."""
        for name in self._names:
            delattr(self._module, name)
        self._module, self._names = None, []
