"""Attention in series: every position looks at every other."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import (
    MIN_NORMED_VALUES,
    conv_weights,
    group_norm,
    kaiming,
    zeroed,
)
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape

MAX_POSITIONS = 1024
"""Most pixels among which attention is offered: its cost grows with their square."""


class SpatialAttention(CountableBranch):
    """Norm, multi-head self-attention over the pixels, pointwise projection.

    The embedded-Gaussian non-local block of Wang et al. 2018 (arXiv:1711.07971), equation 6, with
    the heads and the scaling of Vaswani et al. 2017 (arXiv:1706.03762). Pixels carry no position
    but what the host's convolutions gave them.

    Args:
        shape: of the slot, ``(C, H, W)``.
        num_heads: attention heads of ``ceil(C / num_heads)`` channels each.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, num_heads: int) -> None:
        super().__init__()
        channels = shape.output.features
        self.num_heads = num_heads
        self.head_channels = math.ceil(channels / num_heads)
        inner = num_heads * self.head_channels
        self.norm = group_norm(channels)
        # No bias: softmax cancels that of the keys, which would never learn.
        self.query_key_value = kaiming(nn.Conv2d(channels, 3 * inner, 1, bias=False), gain=1.0)
        self.project = zeroed(nn.Conv2d(inner, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        batch, _, height, width = x.shape
        # (B, 3, heads, head channels, pixels), then three times (B, heads, pixels, head channels)
        qkv = (
            self.query_key_value(self.norm(x))
            .contiguous()
            .reshape(batch, 3, self.num_heads, self.head_channels, height * width)
        )
        query, key, value = qkv.transpose(-2, -1).unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(-2, -1).reshape(batch, -1, height, width)
        out: Tensor = self.project(attended)
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """From 4 pixels, below which there is little to attend to, to :data:`MAX_POSITIONS`."""
        return MIN_NORMED_VALUES <= shape.output.num_positions <= MAX_POSITIONS

    @classmethod
    def cost(cls, shape: SlotShape, /, *, num_heads: int) -> Cost:
        """Four projections, one of them with a bias, the norm, and two products over pairs."""
        channels, positions = shape.output.features, shape.output.num_positions
        inner = num_heads * math.ceil(channels / num_heads)
        weights = 4 * conv_weights(channels, inner)
        pairs = 2 * inner * positions**2
        return Cost(parameters=weights + 3 * channels, flops=2 * (weights * positions + pairs))


BLUEPRINTS = (
    Blueprint(
        id="BP018",
        name="spatial_attention",
        branch=SpatialAttention,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.25,
        curriculum_stage=3,
        parameters={"num_heads": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Wang et al. 2018, arXiv:1711.07971",
    ),
)
