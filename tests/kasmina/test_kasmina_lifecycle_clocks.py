"""Ages, cohorts and pauses."""

import pytest
import torch
from seedlings import Host, command, make_bed, moment
from test_kasmina_lifecycle import EASY, Run, train_epoch

from esper_lightning.kasmina import GateRules, LifecycleRules
from esper_lightning.leyline import (
    BlendSchedule,
    CommandKind,
    Incubation,
    InvalidArgument,
    SeedStage,
)

SHUT = {
    SeedStage.TRAINING: GateRules(min_gradient_norm=1e9),
    SeedStage.BLENDING: GateRules(max_gradient_spread=0.0, max_loss_spread=0.0),
    SeedStage.SHADOWING: GateRules(max_output_ratio=0.0),
    SeedStage.PROBATIONARY: GateRules(price_per_parameter=1e6),
}
"""Rules under which a seed never leaves a stage."""


@pytest.mark.parametrize("most", [2, 3])
@pytest.mark.parametrize("stage", SHUT, ids=lambda stage: stage.name)
def test_every_live_stage_has_an_oldest_age(stage: SeedStage, most: int) -> None:
    run = Run().drive_to(stage)
    run.bed.rules = LifecycleRules(max_ages={stage.name: most}, gates=SHUT[stage], embargo=1)
    for age in range(1, most):
        assert run.boundary() == []
        assert run.slot.record.age == age
    assert run.boundary() == [SeedStage.CULLED]
    assert f"{most} epochs in {stage.name} are the most allowed" in run.slot.record.reason


def test_a_seed_that_never_sees_a_batch_is_culled() -> None:
    run = Run().drive_to(SeedStage.GERMINATED)
    run.bed.rules = LifecycleRules(max_ages={"GERMINATED": 1})
    run.slot.sample, run.slot.listening = None, False
    assert run.boundary() == [SeedStage.CULLED]
    assert run.slot.seed is None


@pytest.mark.parametrize("least", [1, 3])
@pytest.mark.parametrize("stage", ["TRAINING", "SHADOWING"])
def test_no_gate_is_asked_before_the_least_age(stage: str, least: int) -> None:
    run = Run().drive_to(SeedStage[stage])
    run.bed.rules = LifecycleRules(min_ages={stage: least}, gates=EASY.gates, blend=EASY.blend)
    for _ in range(least - 1):
        assert run.boundary() == []
    after = {"TRAINING": SeedStage.BLENDING, "SHADOWING": SeedStage.PROBATIONARY}[stage]
    assert run.boundary() == [after]


def test_ages_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="max_ages\\['TRAINING'\\] = 2 epochs is below"):
        LifecycleRules(min_ages={"TRAINING": 3}, max_ages={"TRAINING": 2})


# -- cohorts ----------------------------------------------------------------------------------


class Cohort:
    """Two slots in one host, with direct seeds."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.bed, self.optimizer = make_bed(
            Host(), paths=("block.0", "mix"), rules=EASY, incubation=Incubation.DIRECT
        )
        self.epoch = -1
        self.objective = 1.0

    def boundary(self) -> None:
        self.epoch += 1
        train_epoch(self.bed, self.optimizer, self.epoch)
        self.bed.close_epoch(moment(self.epoch, objective=self.objective))

    def give(self, kind: CommandKind, slot: str) -> None:
        self.bed.apply(command(kind, slot=slot), moment(self.epoch, objective=self.objective))

    def told(self, path: str) -> tuple[float | None, float | None]:
        seed = self.bed.slots[path].record.seed
        assert seed is not None
        return seed.gain, seed.rent


def test_a_cohort_shares_gain_and_rent_and_one_that_came_later_does_not() -> None:
    both, alone = Cohort(), Cohort()
    for run in (both, alone):
        run.bed.rules = LifecycleRules(gates=GateRules(price_per_parameter=1.0, price_per_flop=0.0))
        run.boundary()
        run.give(CommandKind.GERMINATE, "mix")
        if run is both:
            run.give(CommandKind.GERMINATE, "block.0")
        run.objective = 0.8
        run.boundary()
        if run is alone:
            run.give(CommandKind.GERMINATE, "block.0")
        run.boundary()
    assert both.told("mix") == both.told("block.0")
    assert alone.told("block.0") == (None, None), "too young to be judged"
    gain, rent = alone.told("mix")
    assert gain == both.told("mix")[0]
    assert rent is not None
    assert rent < (both.told("mix")[1] or 0.0), "it pays for itself alone"


def test_the_rest_of_a_cohort_pays_less_when_one_is_culled() -> None:
    run = Cohort()
    run.bed.rules = LifecycleRules(gates=GateRules(price_per_parameter=1.0, price_per_flop=0.0))
    run.boundary()
    for path in run.bed.slots:
        run.give(CommandKind.GERMINATE, path)
    run.objective = 0.8
    run.boundary()
    run.boundary()
    before = run.told("mix")[1]
    run.give(CommandKind.CULL, "block.0")
    run.boundary()
    after = run.told("mix")[1]
    assert before is not None
    assert after is not None
    seed = run.bed.slots["mix"].record.seed
    assert seed is not None
    assert after == pytest.approx(seed.num_parameters / seed.network_parameters_before)
    assert after < before


# -- pauses -----------------------------------------------------------------------------------

PAUSABLE = [
    SeedStage.TRAINING,
    SeedStage.BLENDING,
    SeedStage.SHADOWING,
    SeedStage.PROBATIONARY,
]


@pytest.mark.parametrize("stage", PAUSABLE, ids=lambda stage: stage.name)
def test_nothing_of_a_paused_seed_moves(stage: SeedStage) -> None:
    rules = LifecycleRules(
        blend=BlendSchedule(num_steps=15), gates=EASY.gates, max_ages={"TRAINING": 2}
    )
    run = Run(rules=rules).drive_to(stage)
    if stage is SeedStage.BLENDING:
        run.boundary()
    run.give(CommandKind.PAUSE)
    assert run.slot.seed is not None
    weights = [p.detach().clone() for p in run.slot.seed.parameters()]
    state = [
        {k: v.clone() for k, v in run.optimizer.state.get(p, {}).items()}
        for p in run.slot.seed.parameters()
    ]
    age, alpha = run.slot.record.age, float(run.slot.alpha)
    for _ in range(3):
        assert run.boundary() == [], "its clock stands, however long the pause"
    assert run.slot.record.stage is stage
    assert run.slot.record.age == age
    assert float(run.slot.alpha) == alpha
    for parameter, weight, held in zip(run.slot.seed.parameters(), weights, state, strict=True):
        assert torch.equal(parameter, weight)
        now = run.optimizer.state.get(parameter, {})
        assert now.keys() == held.keys()
        assert all(torch.equal(now[key], held[key]) for key in held)
    run.give(CommandKind.RESUME)
    run.boundary()
    moved = [
        not torch.equal(p, w) for p, w in zip(run.slot.seed.parameters(), weights, strict=True)
    ]
    assert any(moved)


def test_a_paused_seed_can_be_culled() -> None:
    for kind in (CommandKind.CULL, CommandKind.EMERGENCY):
        run = Run().drive_to(SeedStage.TRAINING)
        run.give(CommandKind.PAUSE)
        assert run.give(kind) == [SeedStage.CULLED]
        assert run.slot.seed is None
        assert not run.slot.record.paused
        assert run.bed.groups.num_held("mix") == 0
