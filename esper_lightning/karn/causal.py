"""Branches along a sequence in which no token looks ahead, in parallel to the wrapped module.

A causal host stays causal with them: what happens behind a token changes nothing at it.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import TOKENS, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import MIN_NORMED_VALUES, conv_weights, kaiming, scaled, zeroed
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.leyline import Attachment, SlotShape

MIN_TOKENS = 4
"""Fewest tokens along which mixing is offered: with one there is nothing to mix."""

MAX_TOKENS = 4096
"""Most tokens among which attention is offered: its cost grows with their square."""


class CausalConv(CountableBranch):
    """Pointwise expansion, causal depthwise convolution along the sequence, GELU, projection.

    Wu et al. 2019 (Lightweight convolutions, arXiv:1901.10430), section 3, without sharing kernels
    between features and without their softmax; GELU in place of the gate in front. A token sees
    itself and the ``kernel_size - 1`` before it; before the first there are zeros.

    Args:
        shape: of the slot, ``(T, D_in) -> (T, D_out)``.
        expansion: hidden features over ``D_out``.
        kernel_size: tokens that one sees.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape, *, expansion: float, kernel_size: int) -> None:
        super().__init__()
        d_in, d_out = shape.input.features, shape.output.features
        hidden = scaled(d_out, expansion)
        self.kernel_size = kernel_size
        # Nothing between the two is curved.
        self.expand = kaiming(nn.Linear(d_in, hidden, bias=False), gain=1.0)
        self.depthwise = kaiming(nn.Conv1d(hidden, hidden, kernel_size, groups=hidden))
        self.project = zeroed(nn.Linear(hidden, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D_in)`` to ``(B, T, D_out)``."""
        # Zeros in front only: the output at a token is made of it and of those before.
        hidden = F.pad(self.expand(x).transpose(1, 2), (self.kernel_size - 1, 0))
        out: Tensor = self.project(F.gelu(self.depthwise(hidden)).transpose(1, 2))
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """As many tokens out as in, from :data:`MIN_TOKENS`."""
        return super().fits(shape) and shape.output.num_positions >= MIN_TOKENS

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float, kernel_size: int) -> Cost:
        """Two linear layers, the last with its bias, and the convolution with its own."""
        d_in, d_out = shape.input.features, shape.output.features
        hidden = scaled(d_out, expansion)
        weights = conv_weights(d_in + d_out, hidden) + kernel_size * hidden
        return Cost(
            parameters=weights + hidden + d_out, flops=2 * weights * shape.output.num_positions
        )


class TokenAttention(CountableBranch):
    """LayerNorm, causal multi-head self-attention over the tokens, projection.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.2, with the mask of its decoder, and the norm
    in front (Xiong et al. 2020, arXiv:2002.04745), because a slot's input may be of any scale.
    Tokens carry no position but what the host gave them.

    Args:
        shape: of the slot, ``(T, D_in) -> (T, D_out)``.
        expansion: features of all heads together over ``D_out``, rounded up to whole heads.
        num_heads: attention heads.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape, *, expansion: float, num_heads: int) -> None:
        super().__init__()
        d_in, d_out = shape.input.features, shape.output.features
        inner = _inner(d_out, expansion, num_heads)
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(d_in)
        # No bias: softmax cancels that of the keys, which would never learn.
        self.query_key_value = kaiming(nn.Linear(d_in, 3 * inner, bias=False), gain=1.0)
        self.project = zeroed(nn.Linear(inner, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D_in)`` to ``(B, T, D_out)``."""
        # (B, T, 3, heads, head features), then three times (B, heads, T, head features)
        qkv = self.query_key_value(self.norm(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.project(attended.transpose(1, 2).flatten(-2))
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """From :data:`MIN_TOKENS` to :data:`MAX_TOKENS`, and wide enough for the norm."""
        tokens = MIN_TOKENS <= shape.output.num_positions <= MAX_TOKENS
        return super().fits(shape) and tokens and shape.input.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float, num_heads: int) -> Cost:
        """Four projections, one of them with a bias, the norm, and two products over pairs.

        All pairs are counted, those that the mask hides too, as :mod:`torch.utils.flop_counter`
        does.
        """
        d_in, d_out = shape.input.features, shape.output.features
        tokens, inner = shape.output.num_positions, _inner(d_out, expansion, num_heads)
        weights = conv_weights(3 * d_in + d_out, inner)
        pairs = 2 * inner * tokens**2
        return Cost(parameters=weights + 2 * d_in + d_out, flops=2 * (weights * tokens + pairs))


def _inner(width: int, expansion: float, num_heads: int) -> int:
    """``width * expansion``, rounded up to a multiple of the heads.

    >>> _inner(32, 1.0, 4), _inner(5, 0.25, 4)
    (32, 4)
    """
    return num_heads * math.ceil(scaled(width, expansion) / num_heads)


BLUEPRINTS = (
    Blueprint(
        id="BP017",
        name="causal_conv",
        branch=CausalConv,
        kinds=TOKENS,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=1,
        parameters={"expansion": Range(0.25, 8.0, 2.0), "kernel_size": Choice((3, 5, 7), 3)},
        approval="2026-11 v1",
        citation="Wu et al. 2019, arXiv:1901.10430",
    ),
    Blueprint(
        id="BP019",
        name="token_attention",
        branch=TokenAttention,
        kinds=TOKENS,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=2,
        parameters={"expansion": Range(0.25, 4.0, 1.0), "num_heads": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Vaswani et al. 2017, arXiv:1706.03762",
    ),
)
