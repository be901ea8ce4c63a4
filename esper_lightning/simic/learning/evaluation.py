"""What a network says of many boundaries and of what was chosen there, as fast as it can."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from esper_lightning.tamiyo.learned import PolicyNetwork
from esper_lightning.tamiyo.learned.actions import GERMINATE, STOP
from esper_lightning.tamiyo.learned.batch import Batch
from esper_lightning.tamiyo.learned.decoder import Decoder, Turn
from esper_lightning.tamiyo.learned.encoder import Encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Of N boundaries, each with all its actions together.

    Attributes:
        log_probabilities: ``(N,)``.
        entropies: ``(N,)``, of the factors along what was chosen, in nats.
        values: ``(N,)``.
    """

    log_probabilities: Tensor
    entropies: Tensor
    values: Tensor


def evaluate(network: PolicyNetwork, seen: Batch, chosen: Tensor, there: Tensor) -> Told:
    """The sums that :meth:`PolicyNetwork.evaluate` has the terms of, with gradients.

    Most boundaries have one action, which is to wait, and few plant: each factor is computed where
    it counts and nowhere else. What could not have been chosen has a log-probability below
    ``BLOCKED / 2``.

    Args:
        network: with or without adapters.
        seen: the boundaries.
        chosen: ``(N, T, 4)``: kind, slot, blueprint and share of each action, 0 for padding.
        there: ``(N, T)``: which actions there are; the first of each boundary is.
    """
    decoder = network.decoder
    tokens, values = network.encode(seen)
    turn = decoder.begin(seen, tokens)
    rows = torch.arange(len(chosen))
    told, entropies = torch.zeros_like(values), torch.zeros_like(values)
    for step in range(chosen.shape[1]):
        going = there[rows, step].nonzero()[:, 0]
        if going.numel() == 0:
            break
        if len(going) < len(rows):
            rows, turn = rows[going], _of(turn, going)
        for where, own, spread in _factors(decoder, turn, chosen[rows, step]):
            told = told.index_add(0, rows[where], own)
            entropies = entropies.index_add(0, rows[where], spread)
        if step + 1 < chosen.shape[1]:
            decoder.take(turn, *chosen[rows, step].unbind(dim=1))
    return Told(log_probabilities=told, entropies=entropies, values=values)


def _factors(decoder: Decoder, turn: Turn, chosen: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each factor: at which boundaries it counts, its log-probabilities, its entropies."""
    kind, slot, blueprint, share = chosen.unbind(dim=1)
    kinds, scores = decoder.what(turn)
    found = [(torch.arange(len(kind)), *_told(kinds, kind))]
    acts, plants = ((kind != STOP).nonzero()[:, 0], (kind == GERMINATE).nonzero()[:, 0])
    if len(acts):
        places = decoder.where(scores[acts], kind[acts])
        found.append((acts, *_told(places, slot[acts])))
    if len(plants):
        own = _of(turn, plants)
        names, context = decoder.which(own, slot[plants])
        found.append((plants, *_told(names, blueprint[plants])))
        shares = decoder.how_much(own, slot[plants], blueprint[plants], context)
        found.append((plants, *_told(shares, share[plants])))
    return found


def _told(factor: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """``(N,)`` log-probability of what was chosen, and entropy, of a ``(N, n)`` factor."""
    return factor.gather(1, chosen[:, None])[:, 0], -(factor.exp() * factor).sum(dim=1)


def _of(turn: Turn, rows: Tensor) -> Turn:
    """The turn of some of its boundaries."""
    return Turn(
        seen=replace(
            turn.seen, **{each.name: getattr(turn.seen, each.name)[rows] for each in fields(Batch)}
        ),
        tokens=Encoded(
            run=turn.tokens.run[rows],
            slots=turn.tokens.slots[rows],
            blueprints=turn.tokens.blueprints[rows],
        ),
        keys=turn.keys[rows],
        candidates=turn.candidates[rows],
        context=turn.context[rows],
        free=turn.free[rows],
        left=turn.left[rows],
    )
