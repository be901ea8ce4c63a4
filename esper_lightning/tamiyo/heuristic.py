"""The heuristic policy: grow when the curve flattens, where it presses, by what pays."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from esper_lightning.karn import CATALOGUE, Blueprint, Tier
from esper_lightning.leyline import CommandKind, InvalidArgument, SeedState, SystemState
from esper_lightning.leyline.arguments import check_flag, check_number, check_whole
from esper_lightning.tamiyo import pressure, stopping
from esper_lightning.tamiyo.budget import GrowthBudget, Room, check_budget
from esper_lightning.tamiyo.planting import Planting, plan
from esper_lightning.tamiyo.plateau import check_mode, worsening
from esper_lightning.tamiyo.policy import Choice, Policy, restore, wait
from esper_lightning.tamiyo.record import Record
from esper_lightning.tamiyo.shortlist import Shortlist
from esper_lightning.tamiyo.timing import Timing
from esper_lightning.tamiyo.trial import Trial, cohorts, describe, is_last, live, settle

BUDGET = GrowthBudget(max_growth=4.0, max_flops_growth=8.0)
"""Where none is given: FLOPs are limited, too, because a parameter that is used at many positions
costs as many times what its number tells."""


class Heuristic(Policy):
    """Rules, each decision with its reason.

    At the last boundary everything is settled. Before it, seeds on trial are judged cohort by
    cohort (:class:`~esper_lightning.tamiyo.trial.Trial`). Where none is, and the time has come
    (:class:`~esper_lightning.tamiyo.timing.Timing`), a cohort is planted in the free slots with the
    most pressure, each with the blueprint that promises most for its cost, as large as the slot's
    share of the budget admits (:func:`~esper_lightning.tamiyo.planting.shares`).

    No cohort is planted that is not worth its trial by what this run's cohorts gained so far
    (:mod:`~esper_lightning.tamiyo.stopping`).

    Args:
        min_epoch: epochs before the first planting.
        min_improvement: the objective has stopped moving below this relative improvement an epoch.
        window: how many values of the objective a plateau is told from.
        latest_fraction: of ``max_epochs``; the first cohort is planted then at the latest. None
            waits for a plateau alone.
        min_remaining: epochs that must be left for a planting.
        patience: epochs from the last planting, fossilising or cull to the next planting.
        max_live: most live seeds at a time.
        overlap: plant while seeds are live. Their gains then mix.
        spend: share of the remaining budget that one cohort may take.
        min_growth: least that a cohort must add, relative to the network's parameters. Less is a
            crumb that a noisy objective can neither reward nor refuse.
        trial: epochs in PROBATIONARY before which a gain below its rent is not culled.
        trial_share: of the epochs that were left at planting, after which it is. In between, it is
            culled when waiting is not worth its rent any more.
        max_regression: relative worsening of the objective since planting that is culled at once.
        max_dropped: share of steps with a non-finite seed gradient that is culled at once.
        budget: limits of growth; None takes :data:`BUDGET`.
        blueprints: names that are allowed, of any tier, the first ones preferred among equals;
            None allows all of ``tiers``.
        tiers: how far a blueprint that is not named must be trusted.
        require_zero_at_birth: only blueprints that change nothing when planted; for a run whose
            seeds are inserted directly.
        catalogue: blueprints by name.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    name = "heuristic"
    budget: GrowthBudget

    def __init__(
        self,
        *,
        min_epoch: int = 3,
        min_improvement: float = 0.01,
        window: int = 4,
        latest_fraction: float | None = 0.5,
        min_remaining: int = 4,
        patience: int = 3,
        max_live: int = 4,
        overlap: bool = False,
        spend: float = 1.0,
        min_growth: float = 0.05,
        trial: int = 3,
        trial_share: float = 0.6,
        max_regression: float = 0.5,
        max_dropped: float = 0.1,
        budget: GrowthBudget | None = None,
        blueprints: Sequence[str] | None = None,
        tiers: Collection[Tier] = (Tier.PRODUCTION,),
        require_zero_at_birth: bool = True,
        catalogue: Mapping[str, Blueprint] = CATALOGUE,
    ) -> None:
        check_whole("max_live", max_live, least=1)
        check_flag("overlap", overlap)
        check_number("spend", spend)
        check_number("min_growth", min_growth)
        check_budget(budget)
        if not 0 < spend <= 1:
            raise InvalidArgument(f"spend is a share above 0 and at most 1, got {spend}")
        if not min_growth >= 0:
            raise InvalidArgument(f"min_growth must be at least 0, got {min_growth}")
        self._timing = Timing(
            min_epoch=min_epoch,
            min_improvement=min_improvement,
            window=window,
            latest_fraction=latest_fraction,
            min_remaining=min_remaining,
            patience=patience,
        )
        self._trial = Trial(
            epochs=trial,
            share=trial_share,
            max_regression=max_regression,
            max_dropped=max_dropped,
        )
        self._shortlist = Shortlist(
            blueprints=blueprints,
            tiers=tiers,
            require_zero_at_birth=require_zero_at_birth,
            catalogue=catalogue,
        )
        self.budget = budget or BUDGET
        self._max_live = max_live
        self._overlap = overlap
        self._spend = spend
        self._min_growth = min_growth
        self._record = Record.empty()

    def decide(self, state: SystemState) -> list[Choice]:
        """Settle, judge or plant, in this order; else wait."""
        check_mode(state.objective.mode)
        self._record.observe(state)
        if is_last(state):
            return settle(state.slots) or wait("the run ends and no seed is live")
        return self._judge(state) or self._plant(state)

    def candidates(self, state: SystemState) -> list[Choice]:
        """The cohort that it would plant if the time had come."""
        plantings = self._plan(state, num=self._max_live)
        return [each.offer.germinate(each.slot, "may be planted next") for each in plantings]

    def remember(self, state: SystemState, choices: Sequence[Choice]) -> None:
        """Take in a boundary at which another policy decided.

        Args:
            state: at the boundary.
            choices: that were carried out.
        """
        self._record.observe(state)
        for choice in choices:
            if choice.kind is CommandKind.GERMINATE:
                self._record.plant(state.slot(choice.slot), choice.blueprint, epoch=state.epoch)

    def judge(self, state: SystemState) -> list[Choice]:
        """What it would do with the seeds that are alive, and nothing else; none is to wait."""
        self._record.observe(state)
        return settle(state.slots) if is_last(state) else self._judge(state)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of the run."""
        record: dict[str, Any] = msgspec.to_builtins(self._record)
        return record

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what it remembered."""
        self._record = restore(Record, state, policy=self.name)

    def _judge(self, state: SystemState) -> list[Choice]:
        return [
            choice
            for cohort in cohorts(state.slots)
            for choice in self._trial.judge(
                cohort,
                regression=self._regression(state, cohort[0].cohort),
                state=state,
            )
        ]

    def _regression(self, state: SystemState, cohort: int | None) -> float | None:
        value = state.objective.value
        if value is None or cohort is None:
            return None
        if not math.isfinite(value):
            return math.inf
        return worsening(self._record.curve, mode=state.objective.mode, since=cohort)

    def _plant(self, state: SystemState) -> list[Choice]:
        value = state.objective.value
        if value is not None and not math.isfinite(value):
            return wait(f"{state.objective.name} is {value}; nothing grows on that")
        if not self._record.curve:
            return wait(f"{state.objective.name} was never seen; nothing could be judged by it")
        seeds = live(state.slots)
        if seeds and not self._overlap:
            return wait(f"seeds are live: {_list(seeds)}")
        if len(seeds) >= self._max_live:
            return wait(f"{len(seeds)} seeds are live, at most {self._max_live} may be")
        due = self._timing.due(state, self._record.curve, last_change=self._record.changed(state))
        if not due.yes:
            return wait(due.reason)
        return self._cohort(state, due.reason, num=self._max_live - len(seeds))

    def _cohort(self, state: SystemState, why: str, *, num: int) -> list[Choice]:
        """Plant in up to ``num`` slots, or say why in none."""
        if not self._free(state):
            return wait(f"{why}; but no slot is free in which a blueprint fits")
        plantings = self._plan(state, num=num)
        if not plantings:
            room = self._room(state)
            return wait(f"{why}; but nothing fits what is left of the budget: {room}")
        added = sum(planting.offer.price.parameters for planting in plantings)
        if added < self._min_growth * state.num_parameters:
            return wait(
                f"{why}; but the budget leaves {added:,} parameters, less than "
                f"{self._min_growth:.0%} of the network"
            )
        worth = self._worth(state, plantings)
        if worth <= 0:
            tried = len(self._record.tried)
            return wait(
                f"{why}; but after {tried} cohorts another is expected to be worth {worth:.1%}"
            )
        for planting in plantings:
            self._record.plant(planting.slot, planting.offer.blueprint.name, epoch=state.epoch)
        return [
            planting.offer.germinate(
                planting.slot, f"{why}; {pressure.describe(planting.slot)}; {planting}"
            )
            for planting in plantings
        ]

    def _worth(self, state: SystemState, plantings: Sequence[Planting]) -> float:
        """What a cohort is expected to be worth, its trial and its rent paid."""
        now, left = state.num_parameters, None
        parameters = sum(planting.offer.price.parameters for planting in plantings)
        flops = sum(planting.offer.price.flops for planting in plantings)
        share = 0.0
        if state.max_epochs is not None:
            left = state.max_epochs - 1 - state.epoch
            share = min(1.0, self._trial.length(left) / left)
        return stopping.worth_planting(
            self._record.belief(),
            stopping.size(before=now, after=now + parameters, left=left),
            owed=stopping.rent(
                parameters=parameters / max(now, 1),
                flops=_relative(flops, state.flops),
            ),
            share=share,
        )

    def _free(self, state: SystemState) -> list[SeedState]:
        return [
            slot
            for slot in state.slots
            if CommandKind.GERMINATE in slot.legal and self._shortlist.of(slot)
        ]

    def _room(self, state: SystemState) -> Room:
        return self.budget.room(state).scaled(self._spend)

    def _plan(self, state: SystemState, *, num: int) -> list[Planting]:
        return plan(
            pressure.by_pressure(self._free(state))[:num],
            self._room(state),
            state=state,
            shortlist=self._shortlist,
            trust=self._record.trust,
        )


def _relative(flops: float, network: float | None) -> float | None:
    if network is None or not math.isfinite(network) or network <= 0:
        return None
    return flops / network


def _list(seeds: Sequence[SeedState]) -> str:
    return "; ".join(
        f"{seed.slot} {seed.stage.name} (age {seed.age}), {describe(seed)}" for seed in seeds
    )
