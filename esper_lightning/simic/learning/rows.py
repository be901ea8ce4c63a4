"""Boundaries of many episodes as numbers that stand side by side, made once a round."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tamiyo.learned import Action
from esper_lightning.tamiyo.learned.batch import Batch, batch
from esper_lightning.tamiyo.observation import Observation

_FIELDS = tuple(each.name for each in fields(Batch))

_LAYERS, _SLOTS, _BLUEPRINTS = "layers_there", "slots_there", "blueprints_there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """M boundaries with what was chosen there.

    Attributes:
        seen: the observations, padded to the largest.
        chosen: ``(M, T, 4)``: kind, slot, blueprint and share of each action, 0 for padding.
        there: ``(M, T)``: which actions there are.
    """

    seen: Batch
    chosen: Tensor
    there: Tensor

    def __len__(self) -> int:
        """M."""
        return len(self.chosen)

    def take(self, rows: Tensor) -> "Rows":
        """Some of them, without the padding that only others need."""
        own = {name: getattr(self.seen, name)[rows] for name in _FIELDS}
        sizes = {
            name: max(1, int(own[name].sum(dim=1).max())) if own[name].shape[1] else 0
            for name in (_LAYERS, _SLOTS, _BLUEPRINTS)
        }
        length = int(self.there[rows].sum(dim=1).max())
        return Rows(
            seen=_trimmed(own, sizes[_LAYERS], sizes[_SLOTS], sizes[_BLUEPRINTS]),
            chosen=self.chosen[rows, :length],
            there=self.there[rows, :length],
        )


class Minibatch(NamedTuple):
    """What one step of the optimiser learns from, as Lightning moves it; M boundaries.

    Attributes:
        seen: fields of a ``Batch`` by name.
        chosen: ``(M, T, 4)``, as in :class:`Rows`; likewise the next.
        there: ``(M, T)``.
        logged: ``(M,)``, log-probability of what was chosen under the policy that chose.
        start: ``(M,)``, under the policy as it was when the round began.
        base: ``(M,)``, under the base policy.
        before: ``(M,)``, the values when the round began.
        advantages: ``(M,)``.
        returns: ``(M,)``.
        weights: ``(M,)``, how much each counts.
    """

    seen: dict[str, Tensor]
    chosen: Tensor
    there: Tensor
    logged: Tensor
    start: Tensor
    base: Tensor
    before: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor

    @property
    def rows(self) -> Rows:
        """The boundaries and what was chosen there."""
        return Rows(seen=Batch(**self.seen), chosen=self.chosen, there=self.there)


def collate(observations: Sequence[Observation], actions: Sequence[Sequence[Action]]) -> Rows:
    """Put boundaries side by side.

    Args:
        observations: one a boundary.
        actions: those of each boundary, in their order, at least one.

    Raises:
        InvalidArgument: there is none, or they do not belong together.
    """
    if len(observations) != len(actions) or not all(actions):
        raise InvalidArgument(
            f"each boundary has at least one action, got {len(observations)} observations and "
            f"actions {[len(each) for each in actions]}"
        )
    seen = batch(observations)
    lengths = torch.tensor([len(each) for each in actions])
    there = torch.arange(int(lengths.max())) < lengths[:, None]
    chosen = torch.zeros(*there.shape, 4, dtype=torch.int64)
    chosen[there] = torch.tensor(
        [
            (action.kind, action.slot, action.blueprint, action.share)
            for each in actions
            for action in each
        ]
    )
    return Rows(seen=seen, chosen=chosen, there=there)


def fields_of(seen: Batch) -> dict[str, Tensor]:
    """The tensors of a batch by name."""
    return {name: getattr(seen, name) for name in _FIELDS}


def _trimmed(own: dict[str, Tensor], layers: int, slots: int, blueprints: int) -> Batch:
    """Padding stands behind each table, and between layers and slots in the relations."""
    before = own["layers"].shape[1]
    places = torch.cat([torch.arange(layers), torch.arange(before, before + slots)])
    return Batch(
        run=own["run"],
        layers=own["layers"][:, :layers],
        slots=own["slots"][:, :slots],
        blueprints=own["blueprints"][:, :blueprints],
        pairs=own["pairs"][:, :slots, :blueprints],
        relations=own["relations"][:, places[:, None], places],
        legal=own["legal"][:, :slots],
        fits=own["fits"][:, :slots, :blueprints],
        prices=own["prices"][:, :slots, :blueprints],
        room=own["room"],
        layers_there=own[_LAYERS][:, :layers],
        slots_there=own[_SLOTS][:, :slots],
        blueprints_there=own[_BLUEPRINTS][:, :blueprints],
    )
