"""The encoder: tokens for the run, layers, slots and blueprints, attending along the dataflow.

A pre-norm transformer (Vaswani et al. 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745)
without positions. What two tokens are to each other is a bias on their attention, learned for each
head and layer, as the distances of Ying et al. 2021 (Graphormer, arXiv:2106.05234), section 3.1.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.tamiyo.learned.batch import Batch
from esper_lightning.tamiyo.learned.standard import Standard
from esper_lightning.tamiyo.observation import blueprints, layers, run, slots
from esper_lightning.tamiyo.observation.topology import NUM_RELATIONS

_RUN, _NODE, _BLUEPRINT = range(3)

TABLES = ("run", "layers", "slots", "blueprints")
"""Of an observation, in the order of the tokens."""

NUM_BIASES = NUM_RELATIONS + 9
"""Relations of layers and slots to each other, and pairs of the three types of tokens."""

BLOCKED = torch.finfo(torch.float32).min / 4
"""The score of what may not be attended to or chosen. Its softmax is exactly 0 beside any other
score, and sums of a few of them are still finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What the decoder points at; N observations, d features.

    Attributes:
        run: ``(N, d)``.
        slots: ``(N, S, d)``.
        blueprints: ``(N, B, d)``.
    """

    run: Tensor
    slots: Tensor
    blueprints: Tensor


class Attention(nn.Module):
    """Multi-head attention with a bias for each relation.

    Args:
        width: features of a token.
        heads: a divisor of ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.bias = nn.Embedding(NUM_BIASES, heads)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, relations: Tensor, blocked: Tensor) -> Tensor:
        """``(N, T, d)`` to the same.

        Args:
            x: tokens.
            relations: ``(N, T, T)``.
            blocked: ``(N, 1, 1, T)``, :data:`BLOCKED` for padding, 0 for the rest.
        """
        bias = (self.bias(relations).permute(0, 3, 1, 2) + blocked).contiguous()
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(x)),
            self._split(self.key(x)),
            self._split(self.value(x)),
            attn_mask=bias,
        )
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        num, length, _ = x.shape
        return x.view(num, length, self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Attention and a perceptron, each with its norm in front and added to what it reads.

    Args:
        width: features of a token.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.perceptron_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.project = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, relations: Tensor, blocked: Tensor) -> Tensor:
        """``(N, T, d)`` to the same; arguments as of :class:`Attention`."""
        x = x + self.attention(self.attention_norm(x), relations, blocked)
        out: Tensor = x + self.project(F.gelu(self.expand(self.perceptron_norm(x))))
        return out


class Encoder(nn.Module):
    """Observations to tokens.

    Args:
        width: features of a token.
        depth: number of blocks.
        heads: of each attention.
    """

    def __init__(self, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        names = {
            "run": run.NAMES,
            "layers": layers.NAMES,
            "slots": (*slots.NAMES, *layers.NAMES),
            "blueprints": blueprints.NAMES,
        }
        self.standard = nn.ModuleDict(
            {table: Standard(len(found)) for table, found in names.items()}
        )
        self.embed = nn.ModuleDict(
            {table: nn.Linear(2 * len(found), width) for table, found in names.items()}
        )
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, seen: Batch) -> Encoded:
        """Encode each observation of a batch."""
        rows = [seen.run[:, None], seen.layers, seen.slots, seen.blueprints]
        parts = dict(zip(TABLES, rows, strict=True))
        x = torch.cat(
            [self.embed[name](self.standard[name](part)) for name, part in parts.items()], dim=1
        )
        there = F.pad(
            torch.cat([seen.layers_there, seen.slots_there, seen.blueprints_there], dim=1),
            (1, 0),
            value=True,
        )
        blocked = x.new_zeros(there.shape).masked_fill(~there, BLOCKED)[:, None, None]
        x = self.attend(x, token_relations(seen.relations, seen.blueprints.shape[1]), blocked)
        behind = x.shape[1] - seen.blueprints.shape[1]
        own = x[:, behind - seen.slots.shape[1] : behind]
        return Encoded(run=x[:, 0], slots=own, blueprints=x[:, behind:])

    def attend(self, x: Tensor, relations: Tensor, blocked: Tensor) -> Tensor:
        """The blocks and the last norm: embedded tokens to tokens, both ``(N, T, d)``."""
        for block in self.blocks:
            x = block(x, relations, blocked)
        out: Tensor = self.norm(x)
        return out


def token_relations(nodes: Tensor, num_blueprints: int) -> Tensor:
    """``(N, T, T)``: which bias.

    Args:
        nodes: ``(N, n, n)``, relations of layers and slots. Padding is given any: nothing attends
            to it, and nothing reads it.
        num_blueprints: behind them.
    """
    num_nodes = nodes.shape[-1]
    types = torch.tensor([_RUN] + [_NODE] * num_nodes + [_BLUEPRINT] * num_blueprints)
    pairs = NUM_RELATIONS + 3 * types[:, None] + types
    out = pairs.expand(len(nodes), -1, -1).clone()
    out[:, 1 : 1 + num_nodes, 1 : 1 + num_nodes] = nodes.clamp(min=0)
    return out
