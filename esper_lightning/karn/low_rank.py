"""Low-rank linear maps over the last dimension of ``(B, D)`` or ``(B, T, D)``."""

from torch import Tensor, nn

from esper_lightning.karn.blueprint import FEATURES, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import conv_weights, kaiming, zeroed
from esper_lightning.karn.parameter_space import Range
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
)
