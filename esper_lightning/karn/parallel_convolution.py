"""Convolutional branches in parallel: they go around the wrapped module at a width of their own."""

from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import (
    conv_weights,
    kaiming,
    scaled,
    strided_positions,
    strides,
    zeroed,
)
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape


class ParallelConv(CountableBranch):
    """3x3 convolution (with the host's stride), GELU, 3x3 convolution.

    Two layers of He et al. 2016 (ResNet, arXiv:1512.03385) from the module's input to its output.
    No norm: a group norm between the layers gained nothing in trials. At equal cost a 3x3 as the
    last layer beat a pointwise one with twice the hidden width.

    Args:
        shape: of the slot, ``(C_in, H_in, W_in) -> (C_out, H_out, W_out)``.
        expansion: hidden channels over ``C_out``.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape, *, expansion: float) -> None:
        super().__init__()
        c_in, c_out = shape.input.features, shape.output.features
        hidden = scaled(c_out, expansion)
        self.conv = kaiming(nn.Conv2d(c_in, hidden, 3, stride=strides(shape), padding=1))
        self.project = zeroed(nn.Conv2d(hidden, c_out, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H_in, W_in)`` to ``(B, C_out, ~H_out, ~W_out)``."""
        out: Tensor = self.project(F.gelu(self.conv(x)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float) -> Cost:
        """Two convolutions with their biases, both behind the stride."""
        c_in, c_out = shape.input.features, shape.output.features
        hidden = scaled(c_out, expansion)
        weights = conv_weights(c_in + c_out, hidden, kernel_size=3)
        return Cost(
            parameters=weights + hidden + c_out, flops=2 * weights * strided_positions(shape)
        )


class ParallelPointwise(CountableBranch):
    """Average pooling where the host shrinks the map, then a pointwise convolution.

    The projection shortcut of He et al. 2019 (ResNet-D, arXiv:1812.01187), figure 2c: linear, and
    the cheapest way past a module.

    Args:
        shape: of the slot, ``(C_in, H_in, W_in) -> (C_out, H_out, W_out)``.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        # ceil_mode keeps the odd last row, as a strided convolution with padding does.
        self.pool = nn.AvgPool2d(strides(shape), ceil_mode=True)
        self.project = zeroed(nn.Conv2d(shape.input.features, shape.output.features, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H_in, W_in)`` to ``(B, C_out, ~H_out, ~W_out)``."""
        out: Tensor = self.project(self.pool(x))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /) -> Cost:
        """One convolution with its bias, behind the pooling."""
        c_in, c_out = shape.input.features, shape.output.features
        weights = conv_weights(c_in, c_out)
        return Cost(parameters=weights + c_out, flops=2 * weights * strided_positions(shape))


class ParallelInverted(CountableBranch):
    """Pointwise expansion, GELU, depthwise 3x3 with the host's stride, GELU, pointwise projection.

    Sandler et al. 2018 (MobileNetV2, arXiv:1801.04381), figure 4d: a hidden map far wider
    than the host, at about a ninth of a dense 3x3's price. No norms; GELU in place of ReLU6.

    Args:
        shape: of the slot, ``(C_in, H_in, W_in) -> (C_out, H_out, W_out)``.
        expansion: hidden channels over ``C_out``.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape, *, expansion: float) -> None:
        super().__init__()
        c_in, c_out = shape.input.features, shape.output.features
        hidden = scaled(c_out, expansion)
        self.expand = kaiming(nn.Conv2d(c_in, hidden, 1))
        self.depthwise = kaiming(
            nn.Conv2d(hidden, hidden, 3, stride=strides(shape), padding=1, groups=hidden)
        )
        self.project = zeroed(nn.Conv2d(hidden, c_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H_in, W_in)`` to ``(B, C_out, ~H_out, ~W_out)``."""
        hidden = F.gelu(self.expand(x))
        out: Tensor = self.project(F.gelu(self.depthwise(hidden)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float) -> Cost:
        """Three convolutions with their biases; the first runs before the stride."""
        c_in, c_out = shape.input.features, shape.output.features
        hidden = scaled(c_out, expansion)
        expand = conv_weights(c_in, hidden)
        after_stride = conv_weights(hidden, hidden, kernel_size=3, groups=hidden)
        after_stride += conv_weights(hidden, c_out)
        multiply_adds = expand * shape.input.num_positions + after_stride * strided_positions(shape)
        return Cost(parameters=expand + after_stride + 2 * hidden + c_out, flops=2 * multiply_adds)


BLUEPRINTS = (
    Blueprint(
        id="BP014",
        name="parallel_conv",
        branch=ParallelConv,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=1,
        parameters={"expansion": Range(0.25, 8.0, 4.0)},
        approval="2026-11 v1",
        citation="He et al. 2016, arXiv:1512.03385",
    ),
    Blueprint(
        id="BP015",
        name="parallel_pointwise",
        branch=ParallelPointwise,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        approval="2026-11 v1",
        citation="He et al. 2019, arXiv:1812.01187",
    ),
    Blueprint(
        id="BP016",
        name="parallel_inverted",
        branch=ParallelInverted,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"expansion": Range(0.25, 8.0, 4.0)},
        approval="2026-11 v1",
        citation="Sandler et al. 2018, arXiv:1801.04381",
    ),
)
