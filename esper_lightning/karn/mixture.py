"""A mixture of experts over the last dimension of ``(B, D)`` or ``(B, T, D)``."""

from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import FEATURES, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import MIN_NORMED_VALUES, conv_weights, kaiming, scaled, zeroed
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape


class SoftMixture(CountableBranch):
    """LayerNorm, then ``sum_e g_e(x) W_e gelu(V_e x)``: small MLPs, and a softmax that weighs them.

    Shazeer et al. 2017 (arXiv:1701.06538), equations 1 and 2: the dense gate of Jacobs et al. 1991
    (doi:10.1162/neco.1991.3.1.79), without noise and sparsity, so that every expert learns from
    every sample. Experts share the bias of their last layer.

    Args:
        shape: of the slot, ``(D,)`` or ``(T, D)``.
        num_experts: how many there are.
        expansion: hidden width of each expert over ``D``.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, num_experts: int, expansion: float) -> None:
        super().__init__()
        width = shape.output.features
        hidden = num_experts * scaled(width, expansion)
        self.norm = nn.LayerNorm(width)
        self.gate = kaiming(nn.Linear(width, num_experts), gain=1.0)
        self.expand = kaiming(nn.Linear(width, hidden))
        self.project = zeroed(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same."""
        normed = self.norm(x)
        gate = self.gate(normed).softmax(dim=-1)
        # The hidden layers of all experts lie side by side, (..., experts, hidden). To weigh them
        # is to weigh what comes out, because the last layers are linear.
        hidden = F.gelu(self.expand(normed).unflatten(-1, (gate.shape[-1], -1)))
        out: Tensor = self.project((hidden * gate[..., None]).flatten(-2))
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where the norm has enough features."""
        return shape.output.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, num_experts: int, expansion: float) -> Cost:
        """The linear layers of all experts and the gate with their biases, and the norm."""
        width = shape.output.features
        hidden = num_experts * scaled(width, expansion)
        weights = conv_weights(width, num_experts + 2 * hidden)
        return Cost(
            parameters=weights + num_experts + hidden + 3 * width,
            flops=2 * weights * shape.output.num_positions,
        )


BLUEPRINTS = (
    Blueprint(
        id="BP037",
        name="soft_mixture",
        branch=SoftMixture,
        kinds=FEATURES,
        tier=Tier.EXPERIMENTAL,
        risk=0.3,
        curriculum_stage=3,
        parameters={"num_experts": Range(2, 8, 4), "expansion": Range(0.25, 4.0, 1.0)},
        approval="2026-11 v1",
        citation="Shazeer et al. 2017, arXiv:1701.06538",
    ),
)
