"""Whatever the state is: no crash, and nothing that is not legal."""

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from risky_run import TRUSTED, resumed

from esper_lightning.leyline import (
    CommandKind,
    FossilState,
    Hardware,
    Objective,
    RiskLevel,
    SeedStage,
    SeedState,
    Services,
    SystemState,
    legal_commands,
)
from esper_lightning.tamiyo import Choice, GrowthBudget
from esper_lightning.tamiyo.risk import RiskEngine, RiskRules
from esper_lightning.tamiyo.trial import is_last, live

LENGTH = 16
NUM_RUNS = 240
NO_SLOT = (CommandKind.NOOP, CommandKind.ROLLBACK)
FLOATS = (None, 0.0, 1.0, -1.0, 0.5, 1e-300, 1e308, -1e308, math.nan, math.inf, -math.inf, 10**400)
COUNTS = (0, 0, 1, 2, 7, 10**12, 10**400)


class Hostile:
    """Draws boundaries and choices of which nothing needs to make sense."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.one = self.random.choice
        self.harm = self.one([0.01, 0.05, 0.5])

    def wild(self, usual: float = 1.0) -> float | None:
        return self.one(FLOATS) if self.random.random() < self.harm else usual

    def count(self, usual: int = 0) -> int:
        return self.one(COUNTS) if self.random.random() < self.harm else usual

    def seed(self) -> SeedState:
        stage, paused = self.one(list(SeedStage)), self.one([False, True])
        fossil = FossilState(
            blueprint="x",
            parameters={},
            num_parameters=1,
            planted_epoch=0,
            fossilized_epoch=self.count(),
        )
        return SeedState(
            slot=self.one("abc"),
            stage=stage,
            paused=paused,
            gradient_norm=self.wild(),
            dropped_gradients=self.count(),
            pressure=self.wild(),
            gain=self.wild(),
            cohort=self.one([None, 1]),
            legal=self.one([legal_commands(stage, paused=paused), (), tuple(CommandKind)]),
            fossils=self.one([(), (fossil,)]),
            num_culls=self.count(),
            isolation_violations=self.one([None, self.count()]),
            quarantined=() if self.random.random() > self.harm else ("x", "y"),
        )

    def state(self, epoch: int) -> SystemState:
        harmed = self.random.random() < self.harm
        return SystemState(
            run_id="run",
            epoch=self.random.randrange(LENGTH) if harmed else epoch,
            max_epochs=self.one([None, None, 0, LENGTH - 2]),
            global_step=0,
            steps_per_epoch=self.count(10),
            objective=Objective(
                name=self.one(["val/acc", ""]) if harmed else "val/loss",
                mode=self.one(["max", "neither"]) if harmed else "min",
                value=self.wild(2.0 / (1 + epoch)),
            ),
            metrics={},
            slots=tuple(self.seed() for _ in range(self.random.randrange(5))),
            host_parameters=self.count(1000),
            num_parameters=self.count(1500),
            host_flops=self.wild(),
            flops=self.wild(),
            hardware=self.one([None, Hardware(device="cpu", memory_bytes=self.count(10**9))]),
            rollbacks=self.one([None, self.count()]),
            services=self.one([None, Services(step_s=self.wild(), boundary_s=self.wild())]),
        )

    def choices(self) -> list[Choice]:
        return [
            Choice(
                kind=kind,
                slot="" if kind in NO_SLOT else self.one("abcd"),
                blueprint=self.one([TRUSTED[0], "unheard_of"])
                if kind is CommandKind.GERMINATE
                else "",
                reason="any",
                refused=self.one(["", "", "late"]),
            )
            for kind in self.random.choices(list(CommandKind), k=self.random.randrange(6))
        ]


def obeys_the_contract(state: SystemState, given: list[Choice], found: list[Choice]) -> None:
    done = [choice for choice in found if not choice.refused]
    kept = {(choice.kind, choice.slot, choice.blueprint) for choice in found}
    assert all((choice.kind, choice.slot, choice.blueprint) in kept for choice in given)
    assert all(choice.risk is not None for choice in found)
    assert done
    waits = [choice.kind is CommandKind.NOOP for choice in done]
    assert not any(waits[:-1])
    assert [choice.kind for choice in done] != [CommandKind.ROLLBACK, CommandKind.NOOP]
    slots = [choice.slot for choice in done if choice.kind is not CommandKind.ROLLBACK]
    assert len(set(slots)) == len(slots)
    legal: dict[str, tuple[CommandKind, ...]] = {}
    for slot in state.slots:
        legal.setdefault(slot.slot, slot.legal)
    for choice in done:
        assert choice.kind in NO_SLOT or choice.kind in legal[choice.slot]
    risk = done[0].risk
    assert risk is not None
    assert all(0 <= score <= 1 for score in risk.signals.values())
    kinds = [choice.kind for choice in done]
    if CommandKind.ROLLBACK in kinds:
        assert state.rollbacks is not None
    if risk.level >= RiskLevel.ORANGE:
        assert CommandKind.GERMINATE not in kinds
    if risk.level >= RiskLevel.YELLOW or risk.conservative:
        planted = [choice for choice in done if choice.kind is CommandKind.GERMINATE]
        assert len(planted) <= 1
        assert all(choice.blueprint in TRUSTED for choice in planted)
    if is_last(state) and live(state.slots):
        assert CommandKind.PAUSE not in kinds
        assert CommandKind.ROLLBACK not in kinds


@settings(max_examples=NUM_RUNS, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_thousands_of_hostile_boundaries(seed):
    hostile = Hostile(seed)
    rules = RiskRules(budget=GrowthBudget(max_growth=1.0, max_flops_growth=0.5), pause_limit=1)
    engine = RiskEngine(rules, deterministic=False)
    for epoch in range(LENGTH):
        state, choices, by_rule = hostile.state(epoch), hostile.choices(), hostile.choices()
        found = engine.review(state, choices, fallback=lambda _, answer=by_rule: answer)
        obeys_the_contract(state, choices, found)
    assert resumed(engine).state_dict() == engine.state_dict()


def test_the_hostile_boundaries_reach_every_level():
    levels = dict.fromkeys(RiskLevel, 0)
    for seed in range(40):
        hostile, engine = Hostile(seed), RiskEngine()
        for epoch in range(LENGTH):
            found = engine.review(hostile.state(epoch), hostile.choices(), fallback=lambda _: [])
            assert found[0].risk is not None
            levels[found[0].risk.level] += 1
    assert min(levels.values()) > 3, levels
