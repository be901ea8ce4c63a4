"""Attention in series inside the windows of a grid: local, and linear in the number of pixels."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.attention import MapAttention
from esper_lightning.karn.blueprint import SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.leyline import SlotShape


class WindowedAttention(MapAttention):
    """Norm, multi-head self-attention among the pixels of a window, pointwise projection.

    Liu et al. 2021 (Swin, arXiv:2103.14030), section 3.2, with the relative position bias of
    equation 4. Windows are not shifted: that is the work of a second block.

    Args:
        shape: of the slot, ``(C, H, W)``.
        num_heads: attention heads of ``ceil(C / num_heads)`` channels each.
        window_size: side of a window in pixels, cut to the map's.
    """

    def __init__(self, shape: SlotShape, *, num_heads: int, window_size: int) -> None:
        super().__init__(shape, num_heads=num_heads)
        self.window = _window(shape, window_size)
        height, width = self.window
        self.position_bias = nn.Parameter(torch.zeros(num_heads, 2 * height - 1, 2 * width - 1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Every pixel to those of its window."""
        height, width = query.shape[3:]
        # The last windows may reach over the map: -inf hides what is beyond.
        beyond = self._cut(query.new_zeros(height, width), fill=-math.inf)
        # Three times (B, heads, windows, pixels, head channels). Not the fused attention, which on
        # CUDA allows 65,535 of the windows and wants the bias aligned; these matrices are small.
        query, key, value = (self._cut(each).movedim(2, -1) for each in (query, key, value))
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        weights = (scores + self._bias_of_pairs()[:, None] + beyond[:, None]).softmax(dim=-1)
        return self._join((weights @ value).movedim(-1, 2), height, width)

    def _cut(self, maps: Tensor, *, fill: float = 0.0) -> Tensor:
        """``(..., H, W)`` to ``(..., windows, pixels of a window)``."""
        height, width = self.window
        maps = F.pad(maps, (0, -maps.shape[-1] % width, 0, -maps.shape[-2] % height), value=fill)
        *before, map_height, map_width = maps.shape
        grid = maps.reshape(*before, map_height // height, height, map_width // width, width)
        return grid.transpose(-3, -2).flatten(-2).flatten(-3, -2)

    def _join(self, windows: Tensor, height: int, width: int) -> Tensor:
        """``(..., windows, pixels of a window)`` to ``(..., H, W)``."""
        columns = math.ceil(width / self.window[1])
        grid = windows.reshape(*windows.shape[:-2], -1, columns, *self.window)
        return grid.transpose(-3, -2).flatten(-2).flatten(-3, -2)[..., :height, :width]

    def _bias_of_pairs(self) -> Tensor:
        """``(heads, pixels, pixels)``: one number for each offset of a key from its query."""
        rows, columns = (
            torch.arange(side, device=self.position_bias.device) for side in self.window
        )
        row = rows[None, :] - rows[:, None] + len(rows) - 1
        column = columns[None, :] - columns[:, None] + len(columns) - 1
        # (heads, row and column of the query, row and column of the key)
        bias = self.position_bias[:, row[:, None, :, None], column[None, :, None, :]]
        return bias.flatten(3, 4).flatten(1, 2)

    @classmethod
    def cost(cls, shape: SlotShape, /, *, num_heads: int, window_size: int) -> Cost:
        """The projections, two products over pairs within whole windows, and the position bias."""
        height, width = _window(shape, window_size)
        map_height, map_width = shape.output.height_width
        windows = math.ceil(map_height / height) * math.ceil(map_width / width)
        products = 2 * windows * (height * width) ** 2
        parameters, flops = cls.cost_with(shape, num_heads, products=products)
        return Cost(parameters + num_heads * (2 * height - 1) * (2 * width - 1), flops)


def _window(shape: SlotShape, window_size: int) -> tuple[int, int]:
    """Height and width of a window: no larger than the map, or part of its bias would be dead."""
    height, width = shape.output.height_width
    return min(window_size, height), min(window_size, width)


BLUEPRINTS = (
    Blueprint(
        id="BP022",
        name="windowed_attention",
        branch=WindowedAttention,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=3,
        parameters={"num_heads": Range(1, 8, 4), "window_size": Choice((4, 7, 8), 4)},
        approval="2026-11 v1",
        citation="Liu et al. 2021, arXiv:2103.14030",
    ),
)
