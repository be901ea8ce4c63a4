"""A module that stands in the place of a host's own."""

from typing import Any

from torch import nn


class StandIn(nn.Module):
    """Wraps a host module, and is to the host what the module was: attributes, items, truth.

    Args:
        base_layer: the host module.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            base = self.__dict__.get("_modules", {}).get("base_layer")
            # How it is copied and saved is its own affair: a parametrised module copies itself.
            if base is None or name.startswith("__"):
                raise
            return getattr(base, name)

    def __getitem__(self, index: Any) -> Any:
        return self.base_layer[index]  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.base_layer)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        # Hosts ask `if self.downsample:`; without this Python would ask for the length.
        return bool(self.base_layer)
