"""A healthy run is GREEN from its first boundary to its last, and one that is harmed is not."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from growing_run import CATALOGUE, GrowingRun, slot, state
from risky_run import NOOP

from esper_lightning.leyline import (
    LIVE_STAGES,
    FossilState,
    Objective,
    RiskLevel,
    SeedStage,
    SystemState,
)
from esper_lightning.tamiyo import Choice, Periodic, Policy
from esper_lightning.tamiyo.risk import RiskEngine

RUNS = json.loads((Path(__file__).parent / "healthy_runs.json").read_text())
"""What risk is told from in recorded runs of narrow hosts on digits, with the heuristic: two of the
usual length, one of which swings to three times its loss right after a planting, and three deep
ones that begin to learn late, when their gradients rise to fifteen times what they were."""

FOSSIL = FossilState(
    blueprint="x", parameters={}, num_parameters=1, planted_epoch=0, fossilized_epoch=0
)


def recorded(run: dict) -> Iterator[SystemState]:
    for epoch, (loss, slots) in enumerate(run["boundaries"]):
        yield state(
            *(
                slot(
                    f"slot {number}",
                    SeedStage(stage),
                    blueprint=blueprint,
                    cohort=cohort,
                    gradient_norm=norm,
                    pressure=pressure,
                    dropped_gradients=dropped,
                    num_culls=num_culls,
                    fossils=(FOSSIL,) * num_fossils,
                )
                for number, (
                    stage,
                    blueprint,
                    cohort,
                    norm,
                    pressure,
                    dropped,
                    num_culls,
                    num_fossils,
                ) in enumerate(slots)
            ),
            epoch=epoch,
            max_epochs=run["max_epochs"],
            steps_per_epoch=run["steps_per_epoch"],
            objective=Objective(name="val/loss", value=loss),
        )


def levels(states) -> list[RiskLevel]:
    engine = RiskEngine()
    found = []
    for each in states:
        risk = engine.review(each, [NOOP], fallback=lambda _: [])[0].risk
        assert risk is not None
        found.append(risk.level)
    return found


@pytest.mark.parametrize("run", RUNS, ids=[run["name"] for run in RUNS])
def test_recorded_runs_are_green_throughout(run):
    assert max(levels(recorded(run))) is RiskLevel.GREEN


def test_the_recorded_runs_hold_what_is_to_be_told_from_harm():
    for run in RUNS:
        seen = list(recorded(run))
        assert len(seen) >= 8
        assert any(each.stage in LIVE_STAGES for now in seen for each in now.slots)
        assert all(each.pressure is not None for now in seen for each in now.slots)


@pytest.mark.parametrize("run", RUNS[:2], ids=[run["name"] for run in RUNS[:2]])
def test_the_same_runs_are_critical_within_two_boundaries_of_a_collapse(run):
    states = list(recorded(run))
    for broken in (12, 25, 38):
        harmed = [
            msgspec.structs.replace(each, objective=Objective(name="val/loss", value=2.3))
            if each.epoch >= broken
            else each
            for each in states
        ]
        found = levels(harmed)
        assert max(found[:broken]) is RiskLevel.GREEN
        assert found[broken + 1] is RiskLevel.CRITICAL


def noisy(noise: float, overfits: float) -> list[RiskLevel]:
    """Forty runs that flatten, and then get worse by so much an epoch."""
    found = []
    for seed in range(40):
        draw = random.Random(seed)
        losses = [
            (0.3 + 2 * math.exp(-epoch / 4) + overfits * max(0, epoch - 15))
            * math.exp(draw.gauss(0, noise))
            for epoch in range(40)
        ]
        found += levels(
            state(slot(), epoch=epoch, objective=Objective(name="val/loss", value=loss))
            for epoch, loss in enumerate(losses)
        )
    return found


@pytest.mark.parametrize("overfits", [0.0, 0.01])
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_noisy_runs_are_green(noise, overfits):
    assert max(noisy(noise, overfits)) is RiskLevel.GREEN


def test_very_noisy_runs_are_nearly_always_green_and_never_worse_than_yellow():
    found = noisy(0.3, 0.0)
    assert max(found) <= RiskLevel.YELLOW
    assert sum(each is RiskLevel.GREEN for each in found) >= 0.995 * len(found)


def by_the_calendar() -> Periodic:
    return Periodic(start=5, period=5, blueprints=["around"], catalogue=CATALOGUE)


class Reviewed(Policy):
    """A policy whose choices are reviewed."""

    name = "reviewed"

    def __init__(self) -> None:
        self.policy = by_the_calendar()
        self.engine = RiskEngine()
        self.seen: list[RiskLevel] = []

    def decide(self, state: SystemState) -> list[Choice]:
        choices = self.policy.decide(state)
        reviewed = self.engine.review(state, choices, fallback=lambda _: choices)
        assert reviewed[0].risk is not None
        self.seen.append(reviewed[0].risk.level)
        return [choice for choice in reviewed if not choice.refused]


@pytest.mark.parametrize("gain", [0.2, 0.0])
def test_a_green_run_grows_as_without_the_engine(gain):
    policy = Reviewed()
    reviewed = GrowingRun(gain=lambda _: gain).run(policy)
    alone = GrowingRun(gain=lambda _: gain).run(by_the_calendar())
    assert reviewed.kinds() == alone.kinds()
    assert reviewed.kinds()
    assert max(policy.seen) is RiskLevel.GREEN
