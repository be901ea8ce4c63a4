"""The decoder: points at what, where, which and how much, one elementary choice after the other.

Pointing is that of Vinyals et al. 2015 (arXiv:1506.03134), with a dot product; choosing in turns,
with what was chosen added to the query, is that of AlphaStar (Vinyals et al. 2019,
doi:10.1038/s41586-019-1724-z, methods).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.tamiyo.learned.actions import GERMINATE, STOP
from esper_lightning.tamiyo.learned.batch import Batch
from esper_lightning.tamiyo.learned.encoder import BLOCKED, Encoded
from esper_lightning.tamiyo.learned.standard import Standard
from esper_lightning.tamiyo.observation import KINDS, SHARES, pairs

_ACTING = len(KINDS) - 1
_SHARES = torch.tensor(SHARES, dtype=torch.float64)


@dataclass(slots=True, kw_only=True)
class Turn:
    """Where N boundaries stand before their next elementary choice.

    Attributes:
        seen: what was observed.
        tokens: encoded.
        keys: ``(N, S, d)``, of the slots.
        candidates: ``(N, B, d)``, keys of the blueprints.
        context: ``(N, d)``: the run and what was chosen so far.
        free: ``(N, S)``: slots that nothing was chosen for.
        left: ``(N,)`` float64: part of the room that is left.
    """

    seen: Batch
    tokens: Encoded
    keys: Tensor
    candidates: Tensor
    context: Tensor
    free: Tensor
    left: Tensor


class Decoder(nn.Module):
    """Log-probabilities of the next elementary choice, factor by factor.

    Args:
        width: features of a token.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, len(KINDS))
        self.slot_query = nn.Linear(width, _ACTING * width)
        self.slot_key = nn.Linear(width, width)
        self.blueprint_query = nn.Linear(width, width)
        self.blueprint_key = nn.Linear(width, width)
        self.pair_standard = Standard(len(pairs.NAMES))
        self.pair = nn.Linear(2 * len(pairs.NAMES), width)
        self.pair_context = nn.Linear(width, width, bias=False)
        self.pair_score = nn.Linear(width, 1, bias=False)
        self.share_expand = nn.Linear(width, width)
        self.share = nn.Linear(width, len(SHARES))
        self.chosen_kind = nn.Embedding(len(KINDS), width)
        self.chosen_slot = nn.Linear(width, width)
        self.chosen_blueprint = nn.Linear(width, width)
        self.chosen_share = nn.Embedding(len(SHARES), width)
        self.update = nn.Linear(width, width)

    def begin(self, seen: Batch, tokens: Encoded) -> Turn:
        """Before the first choice."""
        return Turn(
            seen=seen,
            tokens=tokens,
            keys=self.slot_key(tokens.slots),
            candidates=self.blueprint_key(tokens.blueprints),
            context=tokens.run,
            free=seen.slots_there,
            left=torch.ones(len(seen.run), dtype=torch.float64),
        )

    def what(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """``(N, K)`` log-probabilities of the kinds, and ``(N, K - 1, S)`` scores of the slots.

        A kind weighs as much as the slots together that it could be asked of, so that the evidence
        of each slot counts in both factors.
        """
        num, width = turn.context.shape
        queries = self.slot_query(turn.context).view(num, _ACTING, width)
        scores = queries @ turn.keys.transpose(1, 2) / math.sqrt(width)
        may = self._may(turn)
        scores = scores.masked_fill(~may, BLOCKED)
        weights = F.pad(scores.logsumexp(dim=-1), (1, 0))
        none = F.pad(~may.any(dim=-1), (1, 0))
        kinds = (self.kind(turn.context) + weights).masked_fill(none, BLOCKED)
        return kinds.log_softmax(dim=-1), scores

    @staticmethod
    def where(scores: Tensor, kind: Tensor) -> Tensor:
        """``(N, S)`` log-probabilities of the slots for kinds ``(N,)``; nothing for NOOP."""
        chosen = (kind - 1).clamp(min=0)
        return scores[torch.arange(len(kind)), chosen].log_softmax(dim=-1)

    def which(self, turn: Turn, slot: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, B)`` log-probabilities of the blueprints for slots ``(N,)``, and their context."""
        rows = torch.arange(len(slot))
        context = turn.context + self.chosen_slot(turn.tokens.slots[rows, slot])
        query = self.blueprint_query(context)[..., None]
        scores = (turn.candidates @ query)[..., 0] / math.sqrt(query.shape[1])
        pair = self.pair(self.pair_standard(turn.seen.pairs[rows, slot]))
        hidden = F.relu(pair + self.pair_context(context)[:, None])
        scores = scores + self.pair_score(hidden)[..., 0]
        may = self._admitted(turn, turn.left)[rows, slot]
        return _choosable(scores, may), context

    def how_much(self, turn: Turn, slot: Tensor, blueprint: Tensor, context: Tensor) -> Tensor:
        """``(N, 4)`` log-probabilities of the shares."""
        rows = torch.arange(len(slot))
        hidden = context + self.chosen_blueprint(turn.tokens.blueprints[rows, blueprint])
        scores = self.share(F.relu(self.share_expand(hidden)))
        prices = turn.seen.prices[rows, slot, blueprint]
        room = _granted(turn.seen.room[:, None], turn.left[:, None] * _SHARES)
        may = (prices[:, None] <= room).all(dim=-1)
        # Without any limit there are no parts of it.
        may[:, 1:] &= ~turn.seen.room.isinf().all(dim=-1, keepdim=True)
        return _choosable(scores, may)

    def take(
        self, turn: Turn, kind: Tensor, slot: Tensor, blueprint: Tensor, share: Tensor
    ) -> None:
        """Go on to the next choice, all of ``(N,)``; indices that a kind does not need are 0."""
        rows = torch.arange(len(kind))
        plants = (kind == GERMINATE)[:, None]
        chosen = self.chosen_kind(kind) + self.chosen_slot(turn.tokens.slots[rows, slot])
        planted = self.chosen_blueprint(turn.tokens.blueprints[rows, blueprint])
        chosen = chosen + plants * (planted + self.chosen_share(share))
        turn.context = turn.context + self.update(F.relu(chosen))
        acts = kind != STOP
        turn.free = turn.free.clone()
        turn.free[rows, slot] &= ~acts
        limited = ~turn.seen.room.isinf().all(dim=-1)
        gone = torch.where(plants[:, 0] & limited, _SHARES[share], 0.0)
        turn.left = turn.left * (1 - gone)

    def _may(self, turn: Turn) -> Tensor:
        """``(N, K - 1, S)``: which kind may be asked of which slot."""
        may = turn.seen.legal[..., 1:].transpose(1, 2) & turn.free[:, None]
        fits = self._admitted(turn, turn.left).any(dim=-1)
        may[:, GERMINATE - 1] &= fits
        return may

    @staticmethod
    def _admitted(turn: Turn, part: Tensor) -> Tensor:
        """``(N, S, B)``: what fits in a part of the room, at the smallest size."""
        room = _granted(turn.seen.room, part)
        return turn.seen.fits & (turn.seen.prices <= room[:, None, None]).all(dim=-1)


def _choosable(scores: Tensor, may: Tensor) -> Tensor:
    """Log-probabilities of what may be chosen."""
    return scores.masked_fill(~may, BLOCKED).log_softmax(dim=-1)


def _granted(room: Tensor, part: Tensor) -> Tensor:
    """Parts of ``(..., 2)`` limits, rounded down; an infinite one has no parts."""
    endless = room.isinf()
    return torch.where(endless, room, (room.masked_fill(endless, 0.0) * part[..., None]).floor())
