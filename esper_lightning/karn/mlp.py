"""Multi-layer perceptrons over the last dimension of ``(B, D)`` or ``(B, T, D)``."""

from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import FEATURES, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import MIN_NORMED_VALUES, conv_weights, kaiming, scaled, zeroed
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape


class _NormedMlp(CountableBranch):
    """Base of the branches that begin with a LayerNorm."""

    attachment = Attachment.SERIES

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        return shape.output.features >= MIN_NORMED_VALUES


class MlpResidual(_NormedMlp):
    """LayerNorm, linear, GELU, linear: the feed-forward half of a pre-norm transformer block.

    Vaswani et al. 2017 (arXiv:1706.03762), equation 2, with the norm in front (Xiong et al. 2020,
    arXiv:2002.04745).

    Args:
        shape: of the slot, ``(D,)`` or ``(T, D)``.
        expansion: hidden width over ``D``.
    """

    def __init__(self, shape: SlotShape, *, expansion: float) -> None:
        super().__init__()
        width = shape.output.features
        hidden = scaled(width, expansion)
        self.norm = nn.LayerNorm(width)
        self.expand = kaiming(nn.Linear(width, hidden))
        self.project = zeroed(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same."""
        out: Tensor = self.project(F.gelu(self.expand(self.norm(x))))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float) -> Cost:
        """Two linear layers with their biases, and the norm."""
        width = shape.output.features
        hidden = scaled(width, expansion)
        weights = 2 * conv_weights(width, hidden)
        return Cost(
            parameters=weights + 3 * width + hidden,
            flops=2 * weights * shape.output.num_positions,
        )


class GatedMlp(_NormedMlp):
    """LayerNorm, then ``W_3 (silu(W_1 x) * W_2 x)`` without biases: SwiGLU.

    Shazeer 2020 (arXiv:2002.05202), equation 6.

    Args:
        shape: of the slot, ``(D,)`` or ``(T, D)``.
        expansion: hidden width over ``D``.
    """

    def __init__(self, shape: SlotShape, *, expansion: float) -> None:
        super().__init__()
        width = shape.output.features
        hidden = scaled(width, expansion)
        self.norm = nn.LayerNorm(width)
        self.gate = kaiming(nn.Linear(width, hidden, bias=False))
        self.expand = kaiming(nn.Linear(width, hidden, bias=False), gain=1.0)
        self.project = zeroed(nn.Linear(hidden, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same."""
        normed = self.norm(x)
        out: Tensor = self.project(F.silu(self.gate(normed)) * self.expand(normed))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float) -> Cost:
        """Three linear layers without biases, and the norm."""
        width = shape.output.features
        weights = 3 * conv_weights(width, scaled(width, expansion))
        return Cost(parameters=weights + 2 * width, flops=2 * weights * shape.output.num_positions)


class ParallelMlp(CountableBranch):
    """Linear, GELU, linear from the module's input to its output, at a hidden width of its own.

    The two-layer perceptron of Rumelhart et al. 1986 (doi:10.1038/323533a0), with the zero last
    layer of Zhang et al. 2019 (Fixup, arXiv:1901.09321).

    Args:
        shape: of the slot, ``(D_in,) -> (D_out,)`` or ``(T, D_in) -> (T, D_out)``.
        expansion: hidden width over ``D_out``.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape, *, expansion: float) -> None:
        super().__init__()
        d_in, d_out = shape.input.features, shape.output.features
        hidden = scaled(d_out, expansion)
        self.expand = kaiming(nn.Linear(d_in, hidden))
        self.project = zeroed(nn.Linear(hidden, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D_in)`` to ``(..., D_out)``."""
        out: Tensor = self.project(F.gelu(self.expand(x)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float) -> Cost:
        """Two linear layers with their biases."""
        d_in, d_out = shape.input.features, shape.output.features
        hidden = scaled(d_out, expansion)
        weights = conv_weights(d_in + d_out, hidden)
        return Cost(
            parameters=weights + hidden + d_out, flops=2 * weights * shape.output.num_positions
        )


class Adapter(CountableBranch):
    """Linear into a narrow bottleneck, GELU, linear back.

    Houlsby et al. 2019 (arXiv:1902.00751), section 2.1, figure 2 right; the skip connection is the
    slot's sum, and the last layer is 0 instead of near 0.

    Args:
        shape: of the slot, ``(D,)`` or ``(T, D)``.
        reduction: ``D`` over the width of the bottleneck.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, reduction: int) -> None:
        super().__init__()
        width = shape.output.features
        bottleneck = scaled(width, 1 / reduction)
        self.down = kaiming(nn.Linear(width, bottleneck))
        self.up = zeroed(nn.Linear(bottleneck, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same."""
        out: Tensor = self.up(F.gelu(self.down(x)))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, reduction: int) -> Cost:
        """Two linear layers with their biases."""
        width = shape.output.features
        bottleneck = scaled(width, 1 / reduction)
        weights = 2 * conv_weights(width, bottleneck)
        return Cost(
            parameters=weights + bottleneck + width, flops=2 * weights * shape.output.num_positions
        )


BLUEPRINTS = (
    Blueprint(
        id="BP024",
        name="mlp_residual",
        branch=MlpResidual,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=1,
        parameters={"expansion": Range(0.25, 8.0, 4.0)},
        approval="2026-11 v1",
        citation="Vaswani et al. 2017, arXiv:1706.03762",
    ),
    Blueprint(
        id="BP025",
        name="gated_mlp",
        branch=GatedMlp,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=2,
        parameters={"expansion": Range(0.25, 8.0, 2.5)},
        approval="2026-11 v1",
        citation="Shazeer 2020, arXiv:2002.05202",
    ),
    Blueprint(
        id="BP026",
        name="parallel_mlp",
        branch=ParallelMlp,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.1,
        curriculum_stage=1,
        parameters={"expansion": Range(0.25, 8.0, 4.0)},
        approval="2026-11 v1",
        citation="Zhang et al. 2019, arXiv:1901.09321",
    ),
    Blueprint(
        id="BP029",
        name="adapter",
        branch=Adapter,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=2,
        parameters={"reduction": Range(2, 64, 8)},
        approval="2026-11 v1",
        citation="Houlsby et al. 2019, arXiv:1902.00751",
    ),
)
