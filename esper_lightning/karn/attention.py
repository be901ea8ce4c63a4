"""Attention in series over the whole map: among its pixels, or among its channels."""

import math

import torch
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
"""Most pixels among which every pair is attended to: the cost grows with their square."""


class MapAttention(CountableBranch):
    """Base: norm, queries, keys and values of every pixel, attention, pointwise projection.

    Pixels carry no position but what the host's convolutions gave them.

    Args:
        shape: of the slot, ``(C, H, W)``.
        num_heads: attention heads of ``ceil(C / num_heads)`` channels each.
    """

    attachment = Attachment.SERIES
    min_head_channels = 1

    def __init__(self, shape: SlotShape, *, num_heads: int) -> None:
        super().__init__()
        channels = shape.output.features
        inner = num_heads * self.head_channels(shape, num_heads)
        self.num_heads = num_heads
        self.norm = group_norm(channels)
        # No bias: softmax cancels that of the keys, which would never learn.
        self.query_key_value = kaiming(nn.Conv2d(channels, 3 * inner, 1, bias=False), gain=1.0)
        self.project = zeroed(nn.Conv2d(inner, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        qkv = self.query_key_value(self.norm(x)).contiguous()
        attended = self.attend(*qkv.unflatten(1, (3, self.num_heads, -1)).unbind(1))
        out: Tensor = self.project(attended.reshape(x.shape[0], -1, *x.shape[2:]))
        return out

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Three times ``(B, heads, head channels, H, W)`` to the same, or with the pixels flat."""
        raise NotImplementedError(f"{type(self).__name__} must define attend")

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """From 4 pixels, below which there is little to attend to."""
        return shape.output.num_positions >= MIN_NORMED_VALUES

    @classmethod
    def head_channels(cls, shape: SlotShape, num_heads: int) -> int:
        """Channels of one head."""
        return max(cls.min_head_channels, math.ceil(shape.output.features / num_heads))

    @classmethod
    def cost_with(cls, shape: SlotShape, num_heads: int, *, products: int) -> Cost:
        """Four projections, one of them with a bias, the norm, and what attention multiplies.

        Args:
            shape: of the slot.
            num_heads: attention heads.
            products: multiply-adds of attention for each channel of a head.
        """
        channels, positions = shape.output.features, shape.output.num_positions
        inner = num_heads * cls.head_channels(shape, num_heads)
        weights = 4 * conv_weights(channels, inner)
        return Cost(
            parameters=weights + 3 * channels, flops=2 * (weights * positions + inner * products)
        )


class SpatialAttention(MapAttention):
    """Norm, multi-head self-attention over the pixels, pointwise projection.

    The embedded-Gaussian non-local block of Wang et al. 2018 (arXiv:1711.07971), equation 6, with
    the heads and the scaling of Vaswani et al. 2017 (arXiv:1706.03762).

    Args:
        shape: of the slot, ``(C, H, W)``.
        num_heads: attention heads of ``ceil(C / num_heads)`` channels each.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Every pixel to every pixel."""
        query, key, value = (each.flatten(3).transpose(2, 3) for each in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value).transpose(2, 3)

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """From 4 pixels, below which there is little to attend to, to :data:`MAX_POSITIONS`."""
        return super().fits(shape) and shape.output.num_positions <= MAX_POSITIONS

    @classmethod
    def cost(cls, shape: SlotShape, /, *, num_heads: int) -> Cost:
        """The projections, and two products over pairs of pixels."""
        return cls.cost_with(shape, num_heads, products=2 * shape.output.num_positions**2)


class LinearAttention(MapAttention):
    """Attention over the pixels at a cost that grows with their number, not with its square.

    Shen et al. 2021 (Efficient attention, arXiv:1812.01243), section 3.2: the keys are weights over
    the pixels, by which the values are summed up first, into one small matrix for each head; from
    it each pixel reads by its query, which are weights over the channels. Norm in front.

    Args:
        shape: of the slot, ``(C, H, W)``.
        num_heads: attention heads of ``ceil(C / num_heads)`` channels each, at least 2.
    """

    min_head_channels = 2
    """The softmax over one channel is 1, and its query would never learn."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Every pixel to a summary of all."""
        summary = key.flatten(3).softmax(dim=3) @ value.flatten(3).transpose(2, 3)
        return summary.transpose(2, 3) @ query.flatten(3).softmax(dim=2)

    @classmethod
    def cost(cls, shape: SlotShape, /, *, num_heads: int) -> Cost:
        """The projections, and two products with a matrix of channels by channels."""
        products = 2 * cls.head_channels(shape, num_heads) * shape.output.num_positions
        return cls.cost_with(shape, num_heads, products=products)


class ChannelAttention(MapAttention):
    """Norm, multi-head attention in which channels attend to channels, pointwise projection.

    El-Nouby et al. 2021 (XCiT, arXiv:2106.09681), cross-covariance attention of section 3.2:
    queries and keys have length 1 over the pixels, and each head learns a temperature. Without the
    local patch interaction that follows it there.

    Args:
        shape: of the slot, ``(C, H, W)``.
        num_heads: attention heads of ``ceil(C / num_heads)`` channels each, at least 2.
    """

    min_head_channels = 2
    """One channel alone has nothing to choose from."""

    def __init__(self, shape: SlotShape, *, num_heads: int) -> None:
        super().__init__(shape, num_heads=num_heads)
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Every channel of a head to every other."""
        query, key = (F.normalize(each.flatten(3), dim=3) for each in (query, key))
        weights = (query @ key.transpose(2, 3) * self.temperature).softmax(dim=3)
        return weights @ value.flatten(3)

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """From 4 pixels and 4 channels: of fewer the lengths, or the norm, would leave little."""
        return super().fits(shape) and shape.output.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, num_heads: int) -> Cost:
        """The projections, two products over pairs of channels, and the temperatures."""
        products = 2 * cls.head_channels(shape, num_heads) * shape.output.num_positions
        parameters, flops = cls.cost_with(shape, num_heads, products=products)
        return Cost(parameters + num_heads, flops)


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
    Blueprint(
        id="BP020",
        name="linear_attention",
        branch=LinearAttention,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=3,
        parameters={"num_heads": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Shen et al. 2021, arXiv:1812.01243",
    ),
    Blueprint(
        id="BP021",
        name="channel_attention",
        branch=ChannelAttention,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=3,
        parameters={"num_heads": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="El-Nouby et al. 2021, arXiv:2106.09681",
    ),
)
