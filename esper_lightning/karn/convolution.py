"""Convolutional branches in series: they refine the slot's output at its own width."""

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


class _NormedConvolution(CountableBranch):
    """Base of the branches that begin with a group norm over ``(C, H, W)``."""

    attachment = Attachment.SERIES

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        return shape.output.features * shape.output.num_positions >= MIN_NORMED_VALUES


class ConvResidual(_NormedConvolution):
    """Norm, GELU, convolution: half of a pre-activation residual block.

    He et al. 2016 (arXiv:1603.05027), figure 1b; GroupNorm and GELU in place of BatchNorm and ReLU.

    Args:
        shape: of the slot, ``(C, H, W)``.
        kernel_size: side of the kernel, odd.
    """

    def __init__(self, shape: SlotShape, *, kernel_size: int) -> None:
        super().__init__()
        channels = shape.output.features
        self.norm = group_norm(channels)
        self.conv = zeroed(nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        out: Tensor = self.conv(F.gelu(self.norm(x)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, kernel_size: int) -> Cost:
        """One convolution with its bias, and the norm."""
        channels = shape.output.features
        weights = conv_weights(channels, channels, kernel_size=kernel_size)
        return Cost(
            parameters=weights + 3 * channels, flops=2 * weights * shape.output.num_positions
        )


class DepthwiseSeparable(_NormedConvolution):
    """Norm, depthwise convolution, GELU, pointwise convolution.

    Howard et al. 2017 (MobileNets, arXiv:1704.04861), section 3.1; one norm in front instead of
    one behind each convolution.

    Args:
        shape: of the slot, ``(C, H, W)``.
        kernel_size: side of the depthwise kernel, odd.
    """

    def __init__(self, shape: SlotShape, *, kernel_size: int) -> None:
        super().__init__()
        channels, padding = shape.output.features, kernel_size // 2
        self.norm = group_norm(channels)
        self.depthwise = kaiming(
            nn.Conv2d(channels, channels, kernel_size, padding=padding, groups=channels)
        )
        self.pointwise = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        out: Tensor = self.pointwise(F.gelu(self.depthwise(self.norm(x))))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, kernel_size: int) -> Cost:
        """Two convolutions with their biases, and the norm."""
        channels = shape.output.features
        depthwise = conv_weights(channels, channels, kernel_size=kernel_size, groups=channels)
        weights = depthwise + conv_weights(channels, channels)
        return Cost(
            parameters=weights + 4 * channels, flops=2 * weights * shape.output.num_positions
        )


class InvertedResidual(_NormedConvolution):
    """Norm, pointwise expansion, GELU, depthwise 3x3, GELU, linear pointwise projection.

    Sandler et al. 2018 (MobileNetV2, arXiv:1801.04381), figure 3b; one norm in front, GELU in place
    of ReLU6.

    Args:
        shape: of the slot, ``(C, H, W)``.
        expansion: hidden channels over ``C``.
    """

    def __init__(self, shape: SlotShape, *, expansion: int) -> None:
        super().__init__()
        channels = shape.output.features
        hidden = expansion * channels
        self.norm = group_norm(channels)
        self.expand = kaiming(nn.Conv2d(channels, hidden, 1))
        self.depthwise = kaiming(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden))
        self.project = zeroed(nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        hidden = F.gelu(self.expand(self.norm(x)))
        out: Tensor = self.project(F.gelu(self.depthwise(hidden)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: int) -> Cost:
        """Three convolutions with their biases, and the norm."""
        channels = shape.output.features
        hidden = expansion * channels
        depthwise = conv_weights(hidden, hidden, kernel_size=3, groups=hidden)
        weights = 2 * conv_weights(channels, hidden) + depthwise
        return Cost(
            parameters=weights + 3 * channels + 2 * hidden,
            flops=2 * weights * shape.output.num_positions,
        )


class ConvNeXt(CountableBranch):
    """Depthwise 7x7, LayerNorm over the channels of each pixel, a pointwise MLP.

    Liu et al. 2022 (arXiv:2201.03545), figure 4 right. The last layer is 0 instead of a LayerScale
    of 1e-6, so that insertion changes nothing at all.

    Args:
        shape: of the slot, ``(C, H, W)``.
        expansion: hidden channels over ``C``.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, expansion: int) -> None:
        super().__init__()
        channels = shape.output.features
        self.depthwise = kaiming(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels), gain=1.0
        )
        self.norm = nn.LayerNorm(channels)
        self.expand = kaiming(nn.Linear(channels, expansion * channels))
        self.project = zeroed(nn.Linear(expansion * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        channels_last = self.depthwise(x).permute(0, 2, 3, 1)
        out: Tensor = self.project(F.gelu(self.expand(self.norm(channels_last))))
        return out.permute(0, 3, 1, 2)

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where the norm has enough channels."""
        return shape.output.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: int) -> Cost:
        """A depthwise convolution and two linear layers with their biases, and the norm."""
        channels = shape.output.features
        hidden = expansion * channels
        depthwise = conv_weights(channels, channels, kernel_size=7, groups=channels)
        weights = depthwise + 2 * conv_weights(channels, hidden)
        return Cost(
            parameters=weights + 4 * channels + hidden,
            flops=2 * weights * shape.output.num_positions,
        )


class DilatedConv(_NormedConvolution):
    """Norm, dilated 3x3, GELU, pointwise convolution: a wide view at the price of a 3x3.

    Yu & Koltun 2016 (arXiv:1511.07122), equation 2.

    Args:
        shape: of the slot, ``(C, H, W)``.
        dilation: distance between the taps in pixels.
    """

    def __init__(self, shape: SlotShape, *, dilation: int) -> None:
        super().__init__()
        channels = shape.output.features
        self.norm = group_norm(channels)
        self.dilated = kaiming(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        )
        self.project = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        out: Tensor = self.project(F.gelu(self.dilated(self.norm(x))))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, **_dilation: int) -> Cost:
        """Two convolutions with their biases, and the norm; dilation is free."""
        channels = shape.output.features
        dilated = conv_weights(channels, channels, kernel_size=3)
        weights = dilated + conv_weights(channels, channels)
        return Cost(
            parameters=weights + 4 * channels, flops=2 * weights * shape.output.num_positions
        )


class BottleneckConv(_NormedConvolution):
    """Norm, pointwise reduction, GELU, 3x3 convolution, GELU, pointwise restoration.

    He et al. 2016 (ResNet, arXiv:1512.03385), figure 5 right; one norm in front.

    Args:
        shape: of the slot, ``(C, H, W)``.
        reduction: ``C`` over the hidden channels.
    """

    def __init__(self, shape: SlotShape, *, reduction: int) -> None:
        super().__init__()
        channels = shape.output.features
        hidden = scaled(channels, 1 / reduction)
        self.norm = group_norm(channels)
        self.reduce = kaiming(nn.Conv2d(channels, hidden, 1))
        self.conv = kaiming(nn.Conv2d(hidden, hidden, 3, padding=1))
        self.restore = zeroed(nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        hidden = F.gelu(self.reduce(self.norm(x)))
        out: Tensor = self.restore(F.gelu(self.conv(hidden)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, reduction: int) -> Cost:
        """Three convolutions with their biases, and the norm."""
        channels = shape.output.features
        hidden = scaled(channels, 1 / reduction)
        weights = 2 * conv_weights(channels, hidden) + conv_weights(hidden, hidden, kernel_size=3)
        return Cost(
            parameters=weights + 3 * channels + 2 * hidden,
            flops=2 * weights * shape.output.num_positions,
        )


BLUEPRINTS = (
    Blueprint(
        id="BP008",
        name="conv_residual",
        branch=ConvResidual,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=1,
        parameters={"kernel_size": Choice((3, 5), 3)},
        approval="2026-11 v1",
        citation="He et al. 2016, arXiv:1603.05027",
    ),
    Blueprint(
        id="BP009",
        name="depthwise_separable",
        branch=DepthwiseSeparable,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=1,
        parameters={"kernel_size": Choice((3, 5, 7), 3)},
        approval="2026-11 v1",
        citation="Howard et al. 2017, arXiv:1704.04861",
    ),
    Blueprint(
        id="BP010",
        name="inverted_residual",
        branch=InvertedResidual,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"expansion": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Sandler et al. 2018, arXiv:1801.04381",
    ),
    Blueprint(
        id="BP011",
        name="convnext",
        branch=ConvNeXt,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"expansion": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Liu et al. 2022, arXiv:2201.03545",
    ),
    Blueprint(
        id="BP012",
        name="dilated_conv",
        branch=DilatedConv,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"dilation": Range(2, 8, 2)},
        approval="2026-11 v1",
        citation="Yu & Koltun 2016, arXiv:1511.07122",
    ),
    Blueprint(
        id="BP013",
        name="bottleneck_conv",
        branch=BottleneckConv,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=2,
        parameters={"reduction": Range(1, 8, 2)},
        approval="2026-11 v1",
        citation="He et al. 2016, arXiv:1512.03385",
    ),
)
