"""Feature maps and what a slot sees of them."""

from enum import Enum

import msgspec

from esper_lightning.leyline.errors import InvalidArgument


class FeatureKind(str, Enum):
    """How a feature map is laid out. B batch, C channels, H x W pixels, T tokens, D features."""

    SPATIAL = "spatial"  # (B, C, H, W)
    TOKENS = "tokens"  # (B, T, D)
    VECTOR = "vector"  # (B, D)


class Attachment(str, Enum):
    """Where a branch reads: the slot's output (series) or the wrapped module's input (parallel)."""

    SERIES = "series"
    PARALLEL = "parallel"


class FeatureMap(msgspec.Struct, frozen=True):
    """Sizes of one feature map without its batch dimension.

    Attributes:
        kind: the layout.
        sizes: ``(C, H, W)``, ``(T, D)`` or ``(D,)``, all positive.
    """

    kind: FeatureKind
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        ranks = {FeatureKind.SPATIAL: 3, FeatureKind.TOKENS: 2, FeatureKind.VECTOR: 1}
        if len(self.sizes) != ranks[self.kind] or min(self.sizes, default=0) < 1:
            raise InvalidArgument(
                f"a {self.kind.value} feature map has {ranks[self.kind]} positive sizes, "
                f"got {self.sizes}"
            )

    @property
    def features(self) -> int:
        """Number of channels (spatial) or features (tokens, vector)."""
        return self.sizes[0] if self.kind is FeatureKind.SPATIAL else self.sizes[-1]

    @property
    def height_width(self) -> tuple[int, int]:
        """``(H, W)`` of a spatial map, else ``(1, 1)``."""
        return (self.sizes[1], self.sizes[2]) if self.kind is FeatureKind.SPATIAL else (1, 1)

    @property
    def num_positions(self) -> int:
        """``H * W``, ``T`` or 1."""
        if self.kind is FeatureKind.TOKENS:
            return self.sizes[0]
        height, width = self.height_width
        return height * width

    def __str__(self) -> str:
        return f"{self.kind.value} {'x'.join(str(size) for size in self.sizes)}"


class SlotShape(msgspec.Struct, frozen=True):
    """What a branch connects: the wrapped module's input and its output."""

    input: FeatureMap
    output: FeatureMap

    def __str__(self) -> str:
        return f"{self.input} -> {self.output}"


class PossibleSlot(msgspec.Struct, frozen=True, kw_only=True):
    """A module that could be a slot.

    Attributes:
        path: in the model, the name to use in ``slots=[...]``.
        module: its class name.
        shape: what it maps.
        num_parameters: of the module.
        suggested: ``slots="auto"`` would take it.
    """

    path: str
    module: str
    shape: SlotShape
    num_parameters: int
    suggested: bool
