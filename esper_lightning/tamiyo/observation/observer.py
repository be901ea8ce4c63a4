"""Observes a run boundary by boundary."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from esper_lightning.karn import Blueprint
from esper_lightning.leyline import (
    CommandKind,
    InvalidArgument,
    LayerState,
    SeedState,
    SystemState,
)
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.tamiyo.budget import GrowthBudget
from esper_lightning.tamiyo.observation import blueprints, layers, pairs, run, slots
from esper_lightning.tamiyo.observation.history import History
from esper_lightning.tamiyo.observation.observation import KINDS, Observation
from esper_lightning.tamiyo.observation.prices import SIZES, PriceList, Prices
from esper_lightning.tamiyo.observation.scales import Features, rows
from esper_lightning.tamiyo.observation.topology import topology
from esper_lightning.tamiyo.plateau import MIN_POINTS
from esper_lightning.tamiyo.policy import Choice, restore
from esper_lightning.tamiyo.shortlist import Shortlist
from esper_lightning.tamiyo.trial import has_passed

Rows = npt.NDArray[np.float32]

USUAL = (CommandKind.GERMINATE, CommandKind.FOSSILIZE, CommandKind.CULL)
"""What a policy does without being asked for more: what the heuristic does, too."""


class Observer:
    """Makes observations, and remembers of the run what they need.

    Args:
        shortlist: what may be planted.
        budget: limits of growth.
        kinds: what may be done, of :data:`KINDS`, where a slot's state allows it.
        window: points of the objective's curve that its slope is told from, at least 3; the default
            is the heuristic's.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self,
        shortlist: Shortlist,
        budget: GrowthBudget,
        *,
        kinds: Collection[CommandKind] = USUAL,
        window: int = 4,
    ) -> None:
        check_whole("window", window, least=MIN_POINTS)
        asked = {CommandKind(kind) for kind in kinds}
        if not asked or not asked <= set(KINDS[1:]):
            raise InvalidArgument(
                f"kinds must be some of {', '.join(kind.value for kind in KINDS[1:])}, "
                f"got {[kind.value for kind in sorted(asked)]}"
            )
        self._budget = budget
        self._kinds = [kind if kind in asked else None for kind in KINDS]
        self._window = window
        self._prices = PriceList(shortlist)
        self._pairs = pairs.Pairs()
        self._history = History.empty()
        self._host: tuple[object, Tensor, Rows, Rows] | None = None
        self._candidates: tuple[tuple[Blueprint, ...], Rows] | None = None

    def observe(self, state: SystemState) -> Observation:
        """Take in one boundary. The same boundary a second time changes nothing.

        Raises:
            InvalidArgument: the objective's mode is neither ``min`` nor ``max``.
        """
        self._history.observe(state)
        return self.look(state)

    def look(self, state: SystemState) -> Observation:
        """The observation of a boundary, without taking it in."""
        room = self._budget.room(state)
        prices = self._prices.of(state.slots)
        fits = pairs.quarantine(state.slots, prices)
        relations, others, own = self._layers(state)
        whole = run.features(state, self._history, room, window=self._window)
        return Observation(
            run=torch.from_numpy(rows([whole], run.NAMES)[0]),
            layers=torch.from_numpy(others),
            slots=torch.from_numpy(np.concatenate([self._slots(state, fits), own], axis=1)),
            blueprints=torch.from_numpy(self._blueprints(prices)),
            pairs=torch.from_numpy(
                self._pairs.of(state.slots, state, prices, room=room, record=self._history.record)
            ),
            relations=relations,
            legal=torch.from_numpy(self._legal(state)),
            fits=torch.from_numpy(fits),
            prices=torch.from_numpy(prices.prices[..., SIZES.index("smallest"), :]),
            room=torch.from_numpy(pairs.limits(room)),
            slot_names=tuple(slot.slot for slot in state.slots),
            blueprint_names=tuple(each.name for each in prices.blueprints),
        )

    def note(self, state: SystemState, choices: Sequence[Choice]) -> None:
        """Take in what was chosen at a boundary that was observed."""
        self._history.note(state, choices)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of the run."""
        told: dict[str, Any] = msgspec.to_builtins(self._history)
        return told

    def load_state_dict(self, state: Mapping[str, Any], *, policy: str) -> None:
        """Continue with what it remembered.

        Raises:
            InvalidArgument: ``state`` is nothing that was saved; nothing was changed.
        """
        self._history = restore(History, state, policy=policy)

    def _legal(self, state: SystemState) -> npt.NDArray[np.bool_]:
        told = [[_may(kind, slot) for kind in self._kinds] for slot in state.slots]
        return np.array(told, dtype=np.bool_).reshape(-1, len(KINDS))

    def _slots(self, state: SystemState, fits: npt.NDArray[np.bool_]) -> Rows:
        groups = slots.cohorts_of(state, self._history)
        ranks = slots.ranks(state.slots)
        loudest = slots.loudest_of(state.slots)
        offers = fits.sum(axis=1).tolist()
        told = [
            slots.features(
                slot,
                state,
                cohort=groups.get(slot.cohort) if slot.blueprint else None,
                loudest=loudest,
                rank=rank,
                offers=(offered, fits.shape[1]),
            )
            for slot, rank, offered in zip(state.slots, ranks, offers, strict=True)
        ]
        return rows(told, slots.NAMES)

    def _layers(self, state: SystemState) -> tuple[Tensor, Rows, Rows]:
        """The relations, and the features of the other layers and of the slots as layers."""
        key = (state.layers, state.host_parameters, tuple(slot.slot for slot in state.slots))
        if self._host is None or self._host[0] != key:
            graph = topology(state.layers, key[2])
            others, own = (
                rows([self._layer(state, place) for place in places], layers.NAMES)
                for places in (graph.places, graph.slots)
            )
            self._host = key, torch.from_numpy(graph.relations), others, own
        return self._host[1:]

    @staticmethod
    def _layer(state: SystemState, place: int | None) -> Features:
        found: LayerState | None = None if place is None else state.layers[place]
        return layers.features(found, place or 0, state.layers, state.host_parameters)

    def _blueprints(self, prices: Prices) -> Rows:
        if self._candidates is None or self._candidates[0] is not prices.blueprints:
            told = [blueprints.features(each) for each in prices.blueprints]
            self._candidates = prices.blueprints, rows(told, blueprints.NAMES)
        return self._candidates[1]


def _may(kind: CommandKind | None, slot: SeedState) -> bool:
    """Whether it would be done: what G4 has not let pass is refused."""
    return kind in slot.legal and (kind is not CommandKind.FOSSILIZE or has_passed(slot))
