"""A learned memory that is read by its content, over ``(B, D)`` or ``(B, T, D)``."""

import math

import torch
from torch import Tensor, nn

from esper_lightning.karn.blueprint import FEATURES, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import MIN_NORMED_VALUES, conv_weights, kaiming, zeroed
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape


class MemoryLayer(CountableBranch):
    """LayerNorm, queries, softmax over a table of learned keys, the mean of their learned values.

    Sukhbaatar et al. 2019 (Persistent memory, arXiv:1907.01470): persistent vectors in place of the
    feed-forward layer; here alone, without tokens among the keys, so that it works on single
    vectors too. Every head has keys and values of its own. Values have the slot's width, and are
    0 at birth.

    Args:
        shape: of the slot, ``(D,)`` or ``(T, D)``.
        num_heads: queries of ``ceil(D / num_heads)`` features each.
        num_entries: keys, and values, of each head.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, num_heads: int, num_entries: int) -> None:
        super().__init__()
        width = shape.output.features
        head = math.ceil(width / num_heads)
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.query = kaiming(nn.Linear(width, num_heads * head, bias=False), gain=1.0)
        self.keys = nn.Parameter(torch.randn(num_heads, head, num_entries) / math.sqrt(head))
        self.values = zeroed(nn.Linear(num_heads * num_entries, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same."""
        # (heads, positions, head features), whatever the positions are.
        queries = self.query(self.norm(x)).unflatten(-1, (self.num_heads, -1))
        queries = queries.flatten(0, -3).transpose(0, 1)
        found = (queries @ self.keys).softmax(dim=-1).transpose(0, 1).flatten(1)
        out: Tensor = self.values(found)
        return out.reshape(x.shape)

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where the norm has enough features."""
        return shape.output.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, num_heads: int, num_entries: int) -> Cost:
        """Queries, keys and values, without biases, and the norm."""
        width = shape.output.features
        head = math.ceil(width / num_heads)
        weights = num_heads * (conv_weights(width, head) + conv_weights(head + width, num_entries))
        return Cost(parameters=weights + 2 * width, flops=2 * weights * shape.output.num_positions)


BLUEPRINTS = (
    Blueprint(
        id="BP042",
        name="memory_layer",
        branch=MemoryLayer,
        kinds=FEATURES,
        tier=Tier.EXPERIMENTAL,
        risk=0.3,
        curriculum_stage=3,
        parameters={"num_heads": Range(1, 8, 4), "num_entries": Range(8, 256, 32)},
        approval="2026-11 v1",
        citation="Sukhbaatar et al. 2019, arXiv:1907.01470",
    ),
)
