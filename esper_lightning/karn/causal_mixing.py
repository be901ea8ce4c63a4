"""Causal mixing of tokens at less than the price of attention, in parallel to the wrapped module.

As in :mod:`esper_lightning.karn.causal` no token looks ahead.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import TOKENS, Blueprint, Tier
from esper_lightning.karn.causal import MIN_TOKENS
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import (
    MIN_NORMED_VALUES,
    at_least_float32,
    conv_weights,
    kaiming,
    scaled,
    zeroed,
)
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, InvalidArgument, SlotShape

MAX_GATED_TOKENS = 1024
"""Most tokens for which a mixing matrix is offered: it has a weight for each pair."""

CHUNK = 64
"""Tokens among which linear attention compares pairs; what lies before comes as one sum."""


class _NormedMixing(CountableBranch):
    """Base of the branches that begin with a LayerNorm and mix tokens."""

    attachment = Attachment.PARALLEL

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """As many tokens out as in, from :data:`MIN_TOKENS`, and wide enough for the norm."""
        before = cls.reads(shape)
        enough = before.num_positions >= MIN_TOKENS and before.features >= MIN_NORMED_VALUES
        return super().fits(shape) and enough


class TokenLinearAttention(_NormedMixing):
    """LayerNorm, causal multi-head attention with ``elu(.) + 1`` in place of softmax, projection.

    Katharopoulos et al. 2020 (arXiv:2006.16236), section 3.3: ``phi(q_t) S_t / phi(q_t) z_t``,
    where ``S_t`` sums ``phi(k_s) v_s`` and ``z_t`` sums ``phi(k_s)`` over ``s <= t``. The cost
    grows with the number of tokens, not with its square. The sums are not kept for every token, but
    for every chunk of :data:`CHUNK`; inside a chunk pairs are compared.

    Args:
        shape: of the slot, ``(T, D_in) -> (T, D_out)``.
        expansion: features of all heads together over ``D_out``, rounded up to whole heads.
        num_heads: attention heads, of at least two features each.
    """

    def __init__(self, shape: SlotShape, *, expansion: float, num_heads: int) -> None:
        super().__init__()
        d_in, d_out = shape.input.features, shape.output.features
        inner = num_heads * _head_width(d_out, expansion, num_heads)
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(d_in)
        self.query_key_value = kaiming(nn.Linear(d_in, 3 * inner, bias=False), gain=1.0)
        self.project = zeroed(nn.Linear(inner, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D_in)`` to ``(B, T, D_out)``."""
        # (B, T, 3, heads, head features), then three times (B, heads, T, head features)
        qkv = self.query_key_value(self.norm(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = _attend(_positive(query), _positive(key), value)
        out: Tensor = self.project(attended.transpose(1, 2).flatten(-2))
        return out

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float, num_heads: int) -> Cost:
        """Four projections, one with a bias, the norm, and four products for each chunk.

        Two of them are over pairs, those that the mask hides too, and two with the sums before the
        chunk. The last chunk counts as a whole one.
        """
        d_in, d_out, tokens = shape.input.features, shape.output.features, shape.input.num_positions
        width = _head_width(d_out, expansion, num_heads)
        weights = conv_weights(3 * d_in + d_out, num_heads * width)
        chunk = min(CHUNK, tokens)
        # One column more than the head has features: the divisor.
        products = chunk * width + chunk * (width + 1) + 2 * width * (width + 1)
        products *= num_heads * math.ceil(tokens / chunk) * chunk
        return Cost(parameters=weights + 2 * d_in + d_out, flops=2 * (weights * tokens + products))


class TokenGating(_NormedMixing):
    """LayerNorm, linear, GELU; one half is gated by a mix of the other over the tokens; linear.

    The gMLP block of Liu et al. 2021 (arXiv:2105.08050), section 2, with the spatial gating unit
    ``u * (W norm(v) + b)``: ``W`` is near 0 and ``b`` 1 at birth. Made causal: ``W`` is lower
    triangular, and only that half exists.

    Args:
        shape: of the slot, ``(T, D_in) -> (T, D_out)``; shorter sequences are taken, too.
        expansion: width of each half over ``D_out``, at least what the norm needs.
    """

    def __init__(self, shape: SlotShape, *, expansion: float) -> None:
        super().__init__()
        d_in, d_out, tokens = shape.input.features, shape.output.features, shape.input.num_positions
        half = _half_width(d_out, expansion)
        self.num_tokens = tokens
        self.norm = nn.LayerNorm(d_in)
        self.expand = kaiming(nn.Linear(d_in, 2 * half))
        self.gate_norm = nn.LayerNorm(half)
        # The lower triangle row by row.
        self.mix = nn.Parameter(0.01 / math.sqrt(tokens) * torch.randn(_triangle(tokens)))
        self.mix_bias = nn.Parameter(torch.ones(tokens))
        self.project = zeroed(nn.Linear(half, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D_in)`` to ``(B, T, D_out)``.

        Raises:
            InvalidArgument: more tokens than it was built for.
        """
        tokens = x.shape[1]
        if tokens > self.num_tokens:
            raise InvalidArgument(
                f"token_gating was built for {self.num_tokens} tokens and got {tokens}; it takes "
                f"as many or fewer: plant it in a slot that sees the longest sequence"
            )
        passed, gate = F.gelu(self.expand(self.norm(x))).chunk(2, dim=-1)
        gate = self._matrix(tokens) @ self.gate_norm(gate) + self.mix_bias[:tokens, None]
        out: Tensor = self.project(passed * gate)
        return out

    def _matrix(self, tokens: int) -> Tensor:
        """``(T, T)``: how much of each token goes to each."""
        # All of it, even for a shorter sequence: a tracer knows this length and not the other one.
        size = self.num_tokens
        lower = self.mix.new_ones(size, size).tril() > 0
        return self.mix.new_zeros(size, size).masked_scatter(lower, self.mix)[:tokens, :tokens]

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """As the others, up to :data:`MAX_GATED_TOKENS`."""
        return super().fits(shape) and shape.input.num_positions <= MAX_GATED_TOKENS

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float) -> Cost:
        """Two linear layers and the mix with their biases, two norms, and a whole matrix product.

        All pairs are counted, those that look ahead too.
        """
        d_in, d_out, tokens = shape.input.features, shape.output.features, shape.input.num_positions
        half = _half_width(d_out, expansion)
        weights = conv_weights(2 * d_in + d_out, half)
        biases_and_norms = 2 * half + tokens + d_out + 2 * d_in + 2 * half
        return Cost(
            parameters=weights + _triangle(tokens) + biases_and_norms,
            flops=2 * tokens * (weights + tokens * half),
        )


def _positive(x: Tensor) -> Tensor:
    """``elu(x) + 1``, without its cancellation: in bfloat16 ``elu(-7) + 1`` is 0."""
    return x.clamp(max=0).exp() + x.clamp(min=0)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``(B, heads, T, d)`` three times to one: each token's mean of the values up to it.

    Args:
        query: not negative.
        key: not negative; a value counts with the product of its key and the query.
        value: what is averaged.
    """
    batch, heads, tokens, width = query.shape
    chunk = min(CHUNK, tokens)
    # Cancels, and keeps sums over thousands of tokens in the range of float16.
    query = query / width
    # Summed with the values, a column of ones is what the sums are divided by.
    value = F.pad(value, (0, 1), value=1.0)
    # (B, heads, chunks, tokens of a chunk, d); behind the last token there are zeros.
    query, key, value = (
        F.pad(each, (0, 0, 0, -tokens % chunk)).reshape(batch, heads, -1, chunk, each.shape[-1])
        for each in (query, key, value)
    )
    of_chunk = key.transpose(-2, -1) @ value
    # Of all chunks before: moved by one, and float32 for long sums.
    before = F.pad(at_least_float32(of_chunk), (0, 0, 0, 0, 1, 0))[:, :, :-1].cumsum(2)
    pairs = (query @ key.transpose(-2, -1)).tril()
    sums = (query @ before.to(query.dtype) + pairs @ value).flatten(2, 3)[:, :, :tokens]
    return sums[..., :-1] / (sums[..., -1:] + 1e-6)


def _head_width(width: int, expansion: float, num_heads: int) -> int:
    """Features of a head: with one alone the query would cancel.

    >>> _head_width(32, 1.0, 4), _head_width(5, 0.25, 4)
    (8, 2)
    """
    return max(2, math.ceil(scaled(width, expansion) / num_heads))


def _half_width(width: int, expansion: float) -> int:
    return max(MIN_NORMED_VALUES, scaled(width, expansion))


def _triangle(side: int) -> int:
    """Entries of a lower triangular matrix.

    >>> _triangle(3)
    6
    """
    return side * (side + 1) // 2


BLUEPRINTS = (
    Blueprint(
        id="BP023",
        name="token_linear_attention",
        branch=TokenLinearAttention,
        kinds=TOKENS,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=3,
        parameters={"expansion": Range(0.25, 4.0, 1.0), "num_heads": Range(1, 8, 4)},
        approval="2026-11 v1",
        citation="Katharopoulos et al. 2020, arXiv:2006.16236",
    ),
    Blueprint(
        id="BP027",
        name="token_gating",
        branch=TokenGating,
        kinds=TOKENS,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=3,
        parameters={"expansion": Range(0.25, 4.0, 2.0)},
        approval="2026-11 v1",
        citation="Liu et al. 2021, arXiv:2105.08050",
    ),
)
