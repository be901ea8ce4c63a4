"""Linear maps of low rank: over the last dimension, or a convolution."""

from torch import Tensor, nn

from esper_lightning.karn.blueprint import FEATURES, SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import conv_weights, kaiming, zeroed
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.leyline import Attachment, SlotShape


class LowRank(CountableBranch):
    """``f(h) = B A h``: ``A`` random, ``B`` 0 at birth.

    Hu et al. 2022 (LoRA, arXiv:2106.09685), equation 3 with its scale at 1, as a residual instead
    of an update to a frozen weight.

    Args:
        shape: of the slot.
        rank: of ``B A``; never more than the narrower of its two sides.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, rank: int) -> None:
        super().__init__()
        d_in, d_out = self.reads(shape).features, shape.output.features
        rank = min(rank, d_in, d_out)
        self.down = kaiming(nn.Linear(d_in, rank, bias=False), gain=1.0)
        self.up = zeroed(nn.Linear(rank, d_out, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D_in)`` to ``(..., D_out)``."""
        out: Tensor = self.up(self.down(x))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, rank: int) -> Cost:
        """Two linear layers without biases."""
        d_in, d_out = cls.reads(shape).features, shape.output.features
        weights = conv_weights(d_in + d_out, min(rank, d_in, d_out))
        return Cost(parameters=weights, flops=2 * weights * shape.output.num_positions)


class ParallelLowRank(LowRank):
    """``f(x) = B A x`` from the module's input to its output: LoRA as it is used on a linear layer.

    Hu et al. 2022 (LoRA, arXiv:2106.09685), equation 3 with its scale at 1; the layer itself goes
    on training.

    Args:
        shape: of the slot.
        rank: of ``B A``; never more than the narrower of its two sides.
    """

    attachment = Attachment.PARALLEL


class SeparableLowRank(CountableBranch):
    """A convolution of low rank: ``k x 1`` down to a few channels, then ``1 x k`` back up.

    Jaderberg et al. 2014 (arXiv:1405.3866), scheme 2: filters along the columns feed filters along
    the rows, with nothing in between. Learned as a residual instead of fitted to a trained layer.

    Args:
        shape: of the slot, ``(C, H, W)``.
        rank: channels in between; never more than ``k * C``, which is any ``k x k`` convolution.
        kernel_size: ``k``, odd.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, rank: int, kernel_size: int) -> None:
        super().__init__()
        channels, padding = shape.output.features, kernel_size // 2
        rank = min(rank, kernel_size * channels)
        self.down = kaiming(
            nn.Conv2d(channels, rank, (kernel_size, 1), padding=(padding, 0), bias=False), gain=1.0
        )
        self.up = zeroed(
            nn.Conv2d(rank, channels, (1, kernel_size), padding=(0, padding), bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        out: Tensor = self.up(self.down(x))
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where a pixel has a neighbour."""
        return shape.output.num_positions > 1

    @classmethod
    def cost(cls, shape: SlotShape, /, *, rank: int, kernel_size: int) -> Cost:
        """Two convolutions without biases."""
        channels = shape.output.features
        weights = 2 * kernel_size * conv_weights(channels, min(rank, kernel_size * channels))
        return Cost(parameters=weights, flops=2 * weights * shape.output.num_positions)


BLUEPRINTS = (
    Blueprint(
        id="BP030",
        name="low_rank",
        branch=LowRank,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        parameters={"rank": Range(1, 64, 8)},
        approval="2026-11 v1",
        citation="Hu et al. 2022, arXiv:2106.09685",
    ),
    Blueprint(
        id="BP031",
        name="parallel_low_rank",
        branch=ParallelLowRank,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        parameters={"rank": Range(1, 64, 8)},
        approval="2026-11 v1",
        citation="Hu et al. 2022, arXiv:2106.09685",
    ),
    Blueprint(
        id="BP032",
        name="separable_low_rank",
        branch=SeparableLowRank,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=2,
        parameters={"rank": Range(1, 64, 8), "kernel_size": Choice((3, 5, 7), 3)},
        approval="2026-11 v1",
        citation="Jaderberg et al. 2014, arXiv:1405.3866",
    ),
)
