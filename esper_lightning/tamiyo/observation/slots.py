"""What is observed of a slot and its live seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from esper_lightning.leyline import (
    CommandKind,
    FeatureKind,
    Gate,
    SeedStage,
    SeedState,
    SystemState,
)
from esper_lightning.tamiyo import pressure
from esper_lightning.tamiyo.observation.history import History
from esper_lightning.tamiyo.observation.run import BLANK
from esper_lightning.tamiyo.observation.scales import (
    Features,
    amount,
    compressed,
    count,
    finite,
    flag,
    log_ratio,
    many_hot,
    one_hot,
    ratio,
    signed,
)
from esper_lightning.tamiyo.plateau import worsening
from esper_lightning.tamiyo.trial import cohorts, has_passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Seeds that were planted together.

    Attributes:
        size: how many of them live.
        passed: share of these that passed G4.
        worsening: of the objective since they were planted; None where it cannot be told, infinite
            where the objective is not finite.
    """

    size: int
    passed: float
    worsening: float | None


def cohorts_of(state: SystemState, history: History) -> dict[int | None, Cohort]:
    """By the epoch at which they were planted."""
    value, mode = state.objective.value, state.objective.mode
    found = {}
    for seeds in cohorts(state.slots):
        since = seeds[0].cohort
        change = None
        if value is not None and since is not None:
            broken = not math.isfinite(value)
            curve = history.record.curve
            change = math.inf if broken else worsening(curve, mode=mode, since=since)
        found[since] = Cohort(
            size=len(seeds),
            passed=sum(map(has_passed, seeds)) / len(seeds),
            worsening=change,
        )
    return found


def features(
    slot: SeedState,
    state: SystemState,
    *,
    cohort: Cohort | None,
    loudest: float | None,
    rank: int | None,
    offers: tuple[int, int],
) -> Features:
    """Of one slot.

    Args:
        slot: which.
        state: that it stands in.
        cohort: of its live seed.
        loudest: the highest pressure of all slots.
        rank: free slots that press more than it; None where that cannot be told.
        offers: blueprints that fit it, and all of the shortlist that fit anywhere.
    """
    shape = slot.shape
    trial = (
        None
        if slot.cohort is None or state.max_epochs is None
        else state.max_epochs - 1 - slot.cohort
    )
    change = None if cohort is None else cohort.worsening
    there = bool(slot.blueprint)
    added = sum(fossil.num_parameters for fossil in slot.fossils)
    return {
        **one_hot("stage", SeedStage, slot.stage),
        **many_hot("may", CommandKind, slot.legal),
        "paused": flag(slot.paused),
        "age": count(slot.age),
        "age_of_trial": ratio(slot.age, trial),
        "trial": count(trial),
        "seed_age": count(slot.seed_age),
        "seed_age_of_run": ratio(slot.seed_age, state.max_epochs),
        **one_hot("map", FeatureKind, None if shape is None else shape.output.kind),
        "features": count(None if shape is None else shape.output.features),
        "widening": log_ratio(
            None if shape is None else shape.output.features,
            None if shape is None else shape.input.features,
        ),
        "positions": count(None if shape is None else shape.output.num_positions),
        "base_share": log_ratio(slot.base_parameters, state.host_parameters),
        **amount("pressure", slot.pressure, loudest),
        "rank": count(rank),
        "seed_parameters": log_ratio(slot.num_parameters, slot.base_parameters),
        "seed_share": log_ratio(slot.num_parameters, state.num_parameters),
        "alpha": compressed(slot.alpha) if there else None,
        **amount("gradient", slot.gradient_norm, _norm(slot)),
        "dropped": ratio(slot.dropped_gradients, state.steps_per_epoch),
        "output_ratio": compressed(slot.output_ratio),
        **signed("gain", slot.gain),
        **signed("rent", slot.rent),
        "gain_over_rent": ratio(slot.gain, slot.rent),
        **signed("profit", _difference(slot.gain, slot.rent)),
        "pays": _pays(slot),
        **one_hot("gate", Gate, None if slot.gate is None else slot.gate.gate),
        "gate_passed": flag(None if slot.gate is None else slot.gate.passed),
        "passed": flag(has_passed(slot)),
        "cohort": count(None if cohort is None else cohort.size),
        "cohort_passed": None if cohort is None else cohort.passed,
        "broken": flag(None if change is None else math.isinf(change)),
        **signed("worsening", change),
        "fossils": count(len(slot.fossils)),
        "grown": ratio(added, slot.base_parameters),
        "culls": count(slot.num_culls),
        "violations": count(slot.isolation_violations),
        "quarantined": count(len(slot.quarantined)),
        "offers": ratio(*offers),
    }


def ranks(slots: Sequence[SeedState]) -> list[int | None]:
    """For each slot, how many free ones press more, as ``pressure.by_pressure`` weighs them.

    None for one that is not free, and for all where the pressure of a free one is missing.
    """
    claims: list[float | None] = []
    for slot in slots:
        own = finite(slot.pressure)
        free = CommandKind.GERMINATE in slot.legal
        claims.append(own * _penalty(slot) if free and own is not None else None)
        if free and own is None:
            return [None] * len(slots)
    known = [claim for claim in claims if claim is not None]
    return [None if claim is None else sum(other > claim for other in known) for claim in claims]


def loudest_of(slots: Sequence[SeedState]) -> float | None:
    """The highest pressure that was measured."""
    known = [own for slot in slots if (own := finite(slot.pressure)) is not None]
    return max(known, default=None)


def _penalty(slot: SeedState) -> float:
    return float(pressure.CULL_PENALTY ** max(0, slot.num_culls))


def _norm(slot: SeedState) -> float | None:
    """The L2 norm of the wrapped module's gradient, from its root mean square."""
    own = finite(slot.pressure)
    return None if own is None else own * math.sqrt(max(0, slot.base_parameters))


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _pays(slot: SeedState) -> float | None:
    if slot.gain is None or slot.rent is None or math.isnan(slot.rent):
        return None
    return flag(slot.gain >= slot.rent)


_UNKNOWN = SeedState(slot="", stage=SeedStage.UNKNOWN)

NAMES = tuple(features(_UNKNOWN, BLANK, cohort=None, loudest=None, rank=None, offers=(0, 0)))
"""Of the features, in their order."""
