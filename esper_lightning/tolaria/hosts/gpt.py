"""A decoder-only transformer: a host for sequences in which nothing looks ahead."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper_lightning.karn.layers import kaiming, zeroed
from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole

INIT_STD = 0.02
"""Of embeddings and the head at birth, as in GPT-2."""


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which a position sees itself and what is before it.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.2. Zero at birth: see :class:`GPT`.

    Args:
        width: features of ``(B, T, width)``, a multiple of ``num_heads``.
        num_heads: attention heads of ``width / num_heads`` features each.
        dropout: of attention weights.
    """

    def __init__(self, width: int, *, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        # No bias: softmax cancels that of the keys, which would never learn.
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        kaiming(self.query_key_value, gain=1.0)
        zeroed(self.project)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D)`` to the same."""
        # (B, T, 3, heads, head features), then three times (B, heads, T, head features)
        qkv = self.query_key_value(x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True
        )
        out: Tensor = self.project(attended.transpose(1, 2).flatten(-2))
        return out


class FeedForward(nn.Module):
    """Linear, GELU, linear. Zero at birth: see :class:`GPT`.

    With a ``parallel_mlp`` beside it, it is this module with more hidden features.

    Args:
        width: features of ``(B, T, width)``.
        hidden: features between the two layers.
    """

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, width)
        kaiming(self.expand)
        zeroed(self.project)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D)`` to the same."""
        out: Tensor = self.project(F.gelu(self.expand(x)))
        return out


class TransformerBlock(nn.Module):
    """Norm and attention, norm and MLP, each added to what came in.

    The norms are in front (Xiong et al. 2020, arXiv:2002.04745). Dropout of what is added lies here
    and not in the two modules, so that it falls on what grows in them, too.

    Args:
        width: features of ``(B, T, width)``.
        num_heads: of the attention.
        hidden: features inside the MLP.
        dropout: of attention weights and of what is added.
    """

    def __init__(self, width: int, *, num_heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, num_heads=num_heads, dropout=dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, hidden=hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D)`` to the same."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        out: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return out


class GPT(nn.Module):
    """Embeddings of tokens and positions, ``depth`` transformer blocks, a norm, a linear head.

    Radford et al. 2019 (GPT-2): norms in front, learned positions. Three deviations: queries, keys
    and values have no bias; the head is a matrix of its own, which for the few characters of a text
    costs little and leaves the scale of the embedding free; and only embeddings and head are drawn
    with a standard deviation of :data:`INIT_STD`, which for all layers suits widths of hundreds. In
    a block, what reads is drawn by its number of inputs (He et al. 2015, arXiv:1502.01852), and
    what writes to the residual stream is zero, so that a block is the identity at birth (Goyal et
    al. 2017, arXiv:1706.02677, section 5.1, for residual networks): as branches are drawn, at any
    width.

    Natural slots are the MLPs ``blocks.0.mlp``, the attentions ``blocks.0.attention`` and the
    blocks ``blocks.0``, all of them ``(B, T, D)`` to the same. 64 positions and 65 tokens give
    31,488 parameters by default; 256 positions with depth 6, width 384 and 6 heads 10,788,864.

    Args:
        input_shape: ``(T,)``, the most tokens that the host sees at once.
        num_classes: number of different tokens, at least 2.
        width: features of every position, a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: attention heads of each block.
        mlp_ratio: features inside each MLP over ``width``, rounded to at least one.
        dropout: of embeddings, attention weights and what each half of a block adds.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        width: int = 32,
        depth: int = 2,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(input_shape) != 1 or min(input_shape) < 1:
            raise InvalidArgument(
                f"GPT input_shape must be one positive size (T,), the context length, got "
                f"{tuple(input_shape)}; use the CNN for images and the MLP for vectors"
            )
        check_whole("GPT num_classes", num_classes, least=2)
        for name, value in (("width", width), ("depth", depth), ("num_heads", num_heads)):
            check_whole(f"GPT {name}", value, least=1)
        if width % num_heads:
            raise InvalidArgument(
                f"GPT width must be a multiple of num_heads, got {width} and {num_heads}"
            )
        check_number("GPT mlp_ratio", mlp_ratio)
        check_number("GPT dropout", dropout)
        if not (math.isfinite(mlp_ratio) and mlp_ratio > 0):
            raise InvalidArgument(f"GPT mlp_ratio must be finite and above 0, got {mlp_ratio}")
        if not 0 <= dropout < 1:
            raise InvalidArgument(f"GPT dropout must be at least 0 and below 1, got {dropout}")
        self.context = input_shape[0]
        hidden = max(1, round(mlp_ratio * width))
        self.tokens = nn.Embedding(num_classes, width)
        self.positions = nn.Embedding(self.context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(width, num_heads=num_heads, hidden=hidden, dropout=dropout)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes, bias=False)
        for layer in (self.tokens, self.positions, self.head):
            nn.init.normal_(layer.weight, std=INIT_STD)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids ``(B, T)`` int64 to logits ``(B, T, num_classes)`` of each next token.

        Args:
            ids: of at most ``input_shape[0]`` positions.

        Raises:
            InvalidArgument: another rank or type, or too many positions.
        """
        if ids.ndim != 2 or ids.dtype != torch.int64:
            raise InvalidArgument(
                f"GPT takes token ids (B, T) torch.int64, got {ids.dtype} of shape "
                f"{tuple(ids.shape)}; data=tiny_shakespeare has such inputs"
            )
        if ids.shape[1] > self.context:
            raise InvalidArgument(
                f"GPT sees at most {self.context} positions at once, got {ids.shape[1]}; cut the "
                f"sequence, or make the host for a longer input_shape"
            )
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(self.dropout(x))))
        return logits
