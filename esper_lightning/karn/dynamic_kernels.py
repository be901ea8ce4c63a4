"""Convolutions whose kernels are made from what they are applied to, in series."""

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
    scaled,
    zeroed,
)
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.leyline import Attachment, SlotShape

REDUCTION = 4
"""Channels over the hidden width of the layers that make kernels, as in both papers."""

CHANNELS_PER_KERNEL = 16
"""Channels that share a kernel of involution where they divide, as in the paper; else all do."""


class _NormedDynamic(CountableBranch):
    """Base of the branches that begin with a group norm over ``(C, H, W)``."""

    attachment = Attachment.SERIES

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        return shape.output.features * shape.output.num_positions >= MIN_NORMED_VALUES


class DynamicConv(_NormedDynamic):
    """Norm, a 3x3 convolution with a mixture of kernels for each sample, GELU, pointwise layer.

    Chen et al. 2020 (Dynamic convolution, arXiv:1912.03458), section 3: a softmax over a few
    kernels, from the means of the channels. Its logits are small at birth, in place of the paper's
    temperature: both let all kernels learn in the beginning. SiLU in place of ReLU, because a
    hidden layer of one or two units must not be born dead.

    Args:
        shape: of the slot, ``(C, H, W)``.
        num_kernels: how many are mixed.
    """

    def __init__(self, shape: SlotShape, *, num_kernels: int) -> None:
        super().__init__()
        channels = shape.output.features
        hidden = scaled(channels, 1 / REDUCTION)
        self.norm = group_norm(channels)
        self.squeeze = kaiming(nn.Linear(channels, hidden))
        self.choose = kaiming(nn.Linear(hidden, num_kernels), gain=0.1)
        std = math.sqrt(2 / (9 * channels))
        self.kernels = nn.Parameter(std * torch.randn(num_kernels, channels, channels, 3, 3))
        self.biases = nn.Parameter(torch.zeros(num_kernels, channels))
        self.project = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        batch, channels, height, width = x.shape
        choice = self.choose(F.silu(self.squeeze(x.mean(dim=(2, 3))))).softmax(dim=-1)
        kernels = choice @ self.kernels.flatten(1)
        biases = choice @ self.biases
        # One convolution in groups: each sample is a group, and has its own kernel. Flat before it,
        # or the strides of a channels-last map of one pixel live on, and torch refuses them.
        grouped = F.conv2d(
            self.norm(x).flatten().reshape(1, batch * channels, height, width),
            kernels.reshape(batch * channels, channels, 3, 3),
            biases.flatten(),
            padding=1,
            groups=batch,
        )
        out: Tensor = self.project(F.gelu(grouped.reshape(batch, channels, height, width)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, num_kernels: int) -> Cost:
        """All kernels as parameters, one of them as work at each pixel, and the mixing of all."""
        channels, positions = shape.output.features, shape.output.num_positions
        hidden = scaled(channels, 1 / REDUCTION)
        kernel, project = channels**2 * 9, conv_weights(channels, channels)
        choose = conv_weights(channels + num_kernels, hidden)
        mixed = num_kernels * (kernel + channels)
        parameters = choose + hidden + num_kernels + mixed + project + 3 * channels
        return Cost(parameters, flops=2 * (choose + mixed + (kernel + project) * positions))


class Involution(_NormedDynamic):
    """Norm, a kernel for each pixel made from that pixel and shared by channels, GELU, pointwise.

    Li et al. 2021 (Involution, arXiv:2103.06255), section 3: a convolution the other way
    round, different from place to place and the same along the channels. SiLU between the layers
    that make the kernels, in place of BatchNorm and ReLU; the pointwise layer mixes channels, as
    the one behind it in their bottleneck does.

    Args:
        shape: of the slot, ``(C, H, W)``.
        kernel_size: side of the kernels, odd.
    """

    def __init__(self, shape: SlotShape, *, kernel_size: int) -> None:
        super().__init__()
        channels = shape.output.features
        hidden = scaled(channels, 1 / REDUCTION)
        self.kernel_size = kernel_size
        self.groups = _groups(channels)
        self.norm = group_norm(channels)
        self.reduce = kaiming(nn.Conv2d(channels, hidden, 1))
        # A sum over the kernel, of about unit variance.
        span = nn.Conv2d(hidden, self.groups * kernel_size**2, 1)
        self.span = kaiming(span, gain=math.sqrt(2) / kernel_size)
        self.project = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        side, height = self.kernel_size, x.shape[2]
        normed = self.norm(x)
        # (B, groups, 1, rows, columns, H, W)
        kernels = self.span(F.silu(self.reduce(normed)))
        kernels = kernels.unflatten(1, (self.groups, 1, side, side))
        # (B, groups, channels of a group, H + side - 1, W + side - 1)
        grouped = normed.unflatten(1, (self.groups, -1))
        maps, hidden = F.pad(grouped, (side // 2,) * 4), torch.zeros_like(grouped)
        for row in range(side):  # all at once would take the memory of side^2 maps
            taps = maps[:, :, :, row : row + height].unfold(-1, side, 1)
            hidden = hidden + (taps * kernels[:, :, :, row].movedim(3, -1)).sum(-1)
        out: Tensor = self.project(F.gelu(hidden.flatten(1, 2)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, kernel_size: int) -> Cost:
        """The three pointwise convolutions with their biases, and the norm.

        To apply the kernels is elementwise work, and counts as nothing.
        """
        channels = shape.output.features
        hidden = scaled(channels, 1 / REDUCTION)
        numbers = _groups(channels) * kernel_size**2
        weights = conv_weights(channels + numbers, hidden) + conv_weights(channels, channels)
        return Cost(
            parameters=weights + hidden + numbers + 3 * channels,
            flops=2 * weights * shape.output.num_positions,
        )


def _groups(channels: int) -> int:
    """Groups of channels that share a kernel.

    >>> _groups(64), _groups(24)
    (4, 1)
    """
    return channels // CHANNELS_PER_KERNEL if channels % CHANNELS_PER_KERNEL == 0 else 1


BLUEPRINTS = (
    Blueprint(
        id="BP038",
        name="dynamic_conv",
        branch=DynamicConv,
        kinds=SPATIAL,
        tier=Tier.EXPERIMENTAL,
        risk=0.35,
        curriculum_stage=3,
        parameters={"num_kernels": Range(2, 8, 4)},
        approval="2026-11 v1",
        citation="Chen et al. 2020, arXiv:1912.03458",
    ),
    Blueprint(
        id="BP041",
        name="involution",
        branch=Involution,
        kinds=SPATIAL,
        tier=Tier.EXPERIMENTAL,
        risk=0.35,
        curriculum_stage=3,
        parameters={"kernel_size": Choice((3, 5, 7), 7)},
        approval="2026-11 v1",
        citation="Li et al. 2021, arXiv:2103.06255",
    ),
)
