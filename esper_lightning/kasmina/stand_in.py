"""A module that stands in the place of a host's own."""

from typing import Any

from torch import Tensor, nn

_HELD = ("_parameters", "_buffers", "_modules")


class StandIn(nn.Module):
    """Wraps a host module, and is to the host what the module was: attributes, items, truth.

    What the host reads, writes or deletes here and is not this module's own is the wrapped
    module's: ``slot.temperature = 4`` and ``slot.weight = nn.Parameter(...)`` reach it. A subclass
    calls :meth:`_stand` at the end of its construction; what it holds by then is its own.

    Args:
        base_layer: the host module.
    """

    _stands = False

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def _stand(self) -> None:
        """From here on a name that is new belongs to the wrapped module."""
        self.__dict__["_stands"] = True

    def _is_own(self, name: str) -> bool:
        own = self.__dict__
        # How it is copied and saved is its own affair: a parametrised module copies itself.
        if not self._stands or name in own or name.startswith("__") or hasattr(type(self), name):
            return True
        return any(name in own[kind] for kind in _HELD)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            base = self.__dict__.get("_modules", {}).get("base_layer")
            if base is None or name.startswith("__"):
                raise
            return getattr(base, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._is_own(name):
            setattr(self.base_layer, name, value)
            return
        super().__setattr__(name, value)
        if name == "training" and self._stands:
            self.base_layer.training = value

    def __delattr__(self, name: str) -> None:
        if self._is_own(name):
            super().__delattr__(name)
        else:
            delattr(self.base_layer, name)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Of the wrapped module, as any attribute."""
        if self._is_own(name):
            super().register_buffer(name, tensor, persistent)
        else:
            self.base_layer.register_buffer(name, tensor, persistent)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Of the wrapped module, as any attribute."""
        if self._is_own(name):
            super().register_parameter(name, param)
        else:
            self.base_layer.register_parameter(name, param)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """To the wrapped module, as any attribute."""
        if self._is_own(name):
            super().add_module(name, module)
        else:
            self.base_layer.add_module(name, module)

    def __getitem__(self, index: Any) -> Any:
        return self.base_layer[index]  # type: ignore[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.base_layer[index] = value  # type: ignore[operator]

    def __delitem__(self, index: Any) -> None:
        del self.base_layer[index]  # type: ignore[operator]

    def __len__(self) -> int:
        return len(self.base_layer)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        # Hosts ask `if self.downsample:`; without this Python would ask for the length.
        return bool(self.base_layer)
