"""Gates: what turns channels up and down, seen over the map, or pixels, seen over the channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import conv_weights, kaiming, scaled, zeroed
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.leyline import Attachment, SlotShape


class SqueezeExcite(CountableBranch):
    """``f(h) = h * (2 sigmoid(mlp(mean_HW h)) - 1)``: ``h + f(h)`` scales channels by 0 to 2.

    Hu et al. 2018 (arXiv:1709.01507), equations 2 to 4. Two deviations: the gain is 1 at birth, not
    1/2, so that insertion changes nothing; SiLU in place of ReLU, because a hidden layer of one or
    two units must not be born dead.

    Args:
        shape: of the slot, ``(C, H, W)``.
        reduction: ``C`` over the hidden width.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, reduction: int) -> None:
        super().__init__()
        channels = shape.output.features
        hidden = scaled(channels, 1 / reduction)
        self.squeeze = kaiming(nn.Linear(channels, hidden))
        self.excite = zeroed(nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        gate = self.excite(F.silu(self.squeeze(x.mean(dim=(2, 3)))))
        return x * _gain(gate)[:, :, None, None]

    @classmethod
    def cost(cls, shape: SlotShape, /, *, reduction: int) -> Cost:
        """Two linear layers with their biases, once per sample."""
        channels = shape.output.features
        hidden = scaled(channels, 1 / reduction)
        weights = 2 * conv_weights(channels, hidden)
        return Cost(parameters=weights + hidden + channels, flops=2 * weights)


class EfficientChannelAttention(CountableBranch):
    """``f(h) = h * (2 sigmoid(conv(mean_HW h)) - 1)``, the convolution running over the channels.

    Wang et al. 2020 (ECA, arXiv:1910.03151), section 3.2: a channel is gated by its neighbours,
    with a handful of weights whatever the width. The gain is 1 at birth, not 1/2, so that insertion
    changes nothing.

    Args:
        shape: of the slot, ``(C, H, W)``.
        kernel_size: channels that one hears, odd; never more than reach one. The paper's rule gives
            3 from 8 to 127 channels, 5 from there to 2047.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, kernel_size: int) -> None:
        super().__init__()
        kernel_size = _reached(kernel_size, shape.output.features)
        self.conv = zeroed(nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        gate = self.conv(x.mean(dim=(2, 3))[:, None])[:, 0]
        return x * _gain(gate)[:, :, None, None]

    @classmethod
    def cost(cls, shape: SlotShape, /, *, kernel_size: int) -> Cost:
        """One kernel, applied once for every channel."""
        weights = _reached(kernel_size, shape.output.features)
        return Cost(parameters=weights, flops=2 * weights * shape.output.features)


class SpatialGate(CountableBranch):
    """``f(h) = h * (2 sigmoid(conv([mean_C h; max_C h])) - 1)``: one gain for each pixel.

    Woo et al. 2018 (CBAM, arXiv:1807.06521), equation 3. The gain is 1 at birth, not 1/2, so that
    insertion changes nothing; a bias in place of the BatchNorm behind the convolution.

    Args:
        shape: of the slot, ``(C, H, W)``.
        kernel_size: side of the kernel, odd; never more than reaches a pixel.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, kernel_size: int) -> None:
        super().__init__()
        kernel_size = _reached(kernel_size, max(shape.output.height_width))
        self.conv = zeroed(nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        pooled = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * _gain(self.conv(pooled))

    @classmethod
    def cost(cls, shape: SlotShape, /, *, kernel_size: int) -> Cost:
        """One convolution with its bias, from two maps to one."""
        kernel_size = _reached(kernel_size, max(shape.output.height_width))
        weights = conv_weights(2, 1, kernel_size=kernel_size)
        return Cost(parameters=weights + 1, flops=2 * weights * shape.output.num_positions)


def _gain(gate: Tensor) -> Tensor:
    """What a residual multiplies its input by: -1 to 1, and 0 where the gate is 0."""
    return 2 * torch.sigmoid(gate) - 1


def _reached(kernel_size: int, length: int) -> int:
    """``kernel_size`` without the taps that would read padding wherever the kernel stands.

    >>> _reached(7, 16), _reached(7, 2), _reached(3, 1)
    (7, 3, 1)
    """
    return min(kernel_size, 2 * length - 1)


BLUEPRINTS = (
    Blueprint(
        id="BP005",
        name="squeeze_excite",
        branch=SqueezeExcite,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        parameters={"reduction": Range(1, 16, 4)},
        approval="2026-11 v1",
        citation="Hu et al. 2018, arXiv:1709.01507",
    ),
    Blueprint(
        id="BP006",
        name="efficient_channel_attention",
        branch=EfficientChannelAttention,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=2,
        parameters={"kernel_size": Choice((3, 5, 7), 3)},
        approval="2026-11 v1",
        citation="Wang et al. 2020, arXiv:1910.03151",
    ),
    Blueprint(
        id="BP007",
        name="spatial_gate",
        branch=SpatialGate,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=2,
        parameters={"kernel_size": Choice((3, 7), 7)},
        approval="2026-11 v1",
        citation="Woo et al. 2018, arXiv:1807.06521",
    ),
)
