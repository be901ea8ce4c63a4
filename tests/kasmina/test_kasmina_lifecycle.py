"""Every stage x command pair, the gates on the way, and the clocks."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from seedlings import Host, batches, command, make_bed, moment
from torch import Tensor

from esper_lightning.kasmina import GateRules, LifecycleRules, SeedBed
from esper_lightning.leyline import (
    LEGAL_COMMANDS,
    CommandKind,
    CommandRefused,
    GateFailed,
    IllegalTransition,
    Incubation,
    InvalidArgument,
    NonFiniteTraining,
    SeedStage,
    SlotUnsuitable,
    UnknownBlueprint,
    UnknownSlot,
    encode,
    legal_commands,
)
from esper_lightning.leyline.commands import AdaptationCommand, BlendSchedule

EASY = LifecycleRules(
    blend=BlendSchedule(num_steps=4),
    embargo=1,
    gates=GateRules(price_per_parameter=0.0, max_loss_spread=1e9, max_gradient_spread=1e9),
)


def train_epoch(bed: SeedBed, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    bed.watch.start_epoch()
    for number, (x, y) in enumerate(batches(3, seed=epoch)):
        bed.watch.before_step(epoch * 10 + number)
        optimizer.zero_grad()
        loss = F.cross_entropy(bed.network(x), y)
        loss.backward()
        bed.watch.after_backward()
        bed.watch.before_optimizer_step(number)
        optimizer.step()
        bed.watch.after_step(loss.detach())
    bed.watch.before_step(epoch * 10 + 10)


class Run:
    """A bed that can be driven to any stage."""

    def __init__(self, **kwargs: Any) -> None:
        torch.manual_seed(0)
        self.bed, self.optimizer = make_bed(Host(), rules=kwargs.pop("rules", EASY), **kwargs)
        self.slot = self.bed.slots["mix"]
        self.epoch = -1
        self.objective = 1.0

    def boundary(self) -> list[SeedStage]:
        self.epoch += 1
        train_epoch(self.bed, self.optimizer, self.epoch)
        self.objective *= 0.9
        return [
            change.after
            for change in self.bed.close_epoch(moment(self.epoch, objective=self.objective))
        ]

    def give(self, kind: CommandKind, **kwargs: str) -> list[SeedStage]:
        now = moment(self.epoch, objective=self.objective)
        return [change.after for change in self.bed.apply(command(kind, **kwargs), now)]

    def drive_to(self, stage: SeedStage) -> "Run":
        if stage is SeedStage.UNKNOWN:
            self.slot.record.stage = SeedStage.UNKNOWN
            return self
        self.boundary()
        if stage is SeedStage.TERMINATED:
            self.bed.rules = LifecycleRules(max_fossils=1, gates=EASY.gates)
        if stage in (SeedStage.DORMANT,):
            return self
        if stage is SeedStage.GERMINATED:
            self.slot.sample = None
        self.give(CommandKind.GERMINATE)
        for _ in range(12):
            if self.slot.record.stage is stage:
                return self
            if stage in (SeedStage.CULLED, SeedStage.EMBARGOED, SeedStage.RESETTING) and (
                self.slot.record.stage is SeedStage.PROBATIONARY
            ):
                self.give(CommandKind.CULL)
                continue
            fossil = stage in (SeedStage.FOSSILIZED, SeedStage.TERMINATED)
            if fossil and self.slot.record.stage is SeedStage.PROBATIONARY:
                self.boundary()
                self.give(CommandKind.FOSSILIZE)
                continue
            self.boundary()
        raise AssertionError(f"never reached {stage.name}, stands at {self.slot.record.stage}")


def snapshot(run: Run) -> dict[str, Any]:
    """Everything that a command could change."""
    optimizer = run.optimizer
    return {
        "record": encode(run.slot.record),
        "tensors": {k: v.clone() for k, v in run.bed.network.state_dict().items()},
        "groups": [[id(p) for p in group["params"]] for group in optimizer.param_groups],
        "options": [
            {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
        ],
        "moments": [
            value.clone()
            for group in optimizer.param_groups
            for p in group["params"]
            for value in optimizer.state.get(p, {}).values()
            if isinstance(value, Tensor)
        ],
        "rng": torch.get_rng_state(),
        "frozen": [p.requires_grad for p in run.bed.network.parameters()],
    }


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


@pytest.mark.parametrize("kind", CommandKind, ids=lambda kind: kind.name)
@pytest.mark.parametrize("stage", SeedStage, ids=lambda stage: stage.name)
def test_every_stage_and_command(stage: SeedStage, kind: CommandKind) -> None:
    run = Run().drive_to(stage)
    assert run.slot.record.stage is stage
    before = snapshot(run)
    if kind in legal_commands(stage, has_fossils=bool(run.slot.fossils)):
        gated = kind in (CommandKind.ADVANCE, CommandKind.FOSSILIZE)
        if gated and stage is not SeedStage.GERMINATED:
            # Legal, but right after entering a stage there is no evidence yet.
            with pytest.raises(GateFailed, match=f"{kind.name} 'mix' is refused"):
                run.give(kind)
            assert equal(before, snapshot(run))
            return
        run.give(kind)
        idle = kind is CommandKind.NOOP or gated
        assert equal(before, snapshot(run)) is idle
    else:
        with pytest.raises(CommandRefused) as error:
            run.give(kind)
        assert equal(before, snapshot(run))
        if kind in LEGAL_COMMANDS:
            assert isinstance(error.value, IllegalTransition)
            assert all(
                word in str(error.value) for word in ("'mix'", stage.name, kind.name, "NOOP")
            )
        else:
            assert "not a command for a slot" in str(error.value)


def test_advance_skips_a_minimum_age_but_not_the_gate() -> None:
    patient = {stage.name: 9 for stage in (SeedStage.TRAINING, SeedStage.BLENDING)}
    run = Run(rules=LifecycleRules(min_ages=patient, blend=EASY.blend, gates=EASY.gates))
    run.boundary()
    run.give(CommandKind.GERMINATE)
    assert run.boundary() == []
    assert run.give(CommandKind.ADVANCE) == [SeedStage.BLENDING]
    with pytest.raises(GateFailed, match="alpha 0 >= 1 \\(fails\\)"):
        run.give(CommandKind.ADVANCE)
    assert run.boundary() == []
    assert run.give(CommandKind.ADVANCE) == [SeedStage.SHADOWING]


def test_the_whole_way_of_an_isolated_seed() -> None:
    run = Run()
    run.boundary()
    assert run.give(CommandKind.GERMINATE) == [SeedStage.GERMINATED, SeedStage.TRAINING]
    assert run.boundary() == [SeedStage.BLENDING]
    assert run.boundary() == [SeedStage.SHADOWING]
    assert run.boundary() == [SeedStage.PROBATIONARY]
    assert run.boundary() == []
    assert run.boundary() == []
    assert run.give(CommandKind.FOSSILIZE) == [SeedStage.FOSSILIZED]
    assert run.boundary() == [SeedStage.DORMANT]
    assert run.give(CommandKind.GERMINATE) == [SeedStage.GERMINATED, SeedStage.TRAINING]
    assert len(run.slot.fossils) == 1


def test_the_way_of_a_direct_seed_and_of_a_culled_one() -> None:
    run = Run(incubation=Incubation.DIRECT)
    run.boundary()
    assert run.give(CommandKind.GERMINATE) == [SeedStage.GERMINATED, SeedStage.PROBATIONARY]
    run.boundary()
    assert run.give(CommandKind.CULL) == [SeedStage.CULLED]
    assert run.slot.seed is not None, "it ramps out"
    assert run.boundary() == [SeedStage.EMBARGOED]
    assert run.slot.seed is None
    assert run.boundary() == [SeedStage.RESETTING]
    assert run.boundary() == [SeedStage.DORMANT]
    (cull,) = run.slot.record.culls
    assert cull.reason == "test"


def test_an_emergency_and_the_last_boundary_do_not_ramp() -> None:
    for kind, last in ((CommandKind.EMERGENCY, False), (CommandKind.CULL, True)):
        run = Run(incubation=Incubation.DIRECT)
        run.boundary()
        run.give(CommandKind.GERMINATE)
        run.boundary()
        run.bed.apply(command(kind), moment(run.epoch, last=last))
        assert run.slot.record.stage is SeedStage.CULLED
        assert run.slot.seed is None


def test_a_cull_ramps_out_without_a_jump() -> None:
    run = Run(incubation=Incubation.DIRECT).drive_to(SeedStage.PROBATIONARY)
    run.boundary()
    x, _ = batches(1)[0]
    network = run.bed.network.eval()
    before = network(x)
    run.give(CommandKind.CULL)
    assert torch.equal(network(x), before), "alpha is still 1"
    alphas = []
    for step in range(5):
        run.bed.watch.before_step((run.epoch + 1) * 10 + step)
        alphas.append(float(run.slot.alpha))
    assert alphas[0] == 1.0
    assert alphas[-1] == 0.0
    assert alphas == sorted(alphas, reverse=True)


def test_pause_stops_training_and_clocks_and_resume_goes_on() -> None:
    run = Run(rules=LifecycleRules(blend=BlendSchedule(num_steps=40), gates=EASY.gates))
    run.drive_to(SeedStage.BLENDING)
    run.boundary()
    alpha = float(run.slot.alpha)
    assert 0 < alpha < 1
    run.give(CommandKind.PAUSE)
    assert run.slot.seed is not None
    weights = [p.clone() for p in run.slot.seed.parameters()]
    age = run.slot.record.age
    run.boundary()
    assert float(run.slot.alpha) == alpha
    assert run.slot.record.age == age
    assert all(torch.equal(a, b) for a, b in zip(weights, run.slot.seed.parameters(), strict=True))
    with pytest.raises(IllegalTransition, match="the seed is paused"):
        run.give(CommandKind.PAUSE)
    run.give(CommandKind.RESUME)
    run.bed.watch.before_step((run.epoch + 1) * 10)
    assert float(run.slot.alpha) == alpha, "the ramp continues where it stopped"
    run.boundary()
    assert float(run.slot.alpha) > alpha
    assert not torch.equal(weights[0], next(run.slot.seed.parameters()))


def test_a_seed_that_is_too_old_is_culled_with_the_gate_that_held_it() -> None:
    rules = LifecycleRules(max_ages={"TRAINING": 3}, gates=GateRules(min_gradient_norm=1e9))
    run = Run(rules=rules)
    run.boundary()
    run.give(CommandKind.GERMINATE)
    assert run.boundary() == []
    assert "G1 failed" in run.slot.record.reason
    assert run.boundary() == []
    assert run.boundary() == [SeedStage.CULLED]
    assert "3 epochs in TRAINING are the most allowed" in run.slot.record.reason


def test_fossilising_waits_for_its_rent_and_judges_a_cohort_together() -> None:
    rules = LifecycleRules(gates=GateRules(price_per_parameter=1e6))
    run = Run(rules=rules, incubation=Incubation.DIRECT).drive_to(SeedStage.PROBATIONARY)
    run.boundary()
    run.boundary()
    with pytest.raises(GateFailed, match="gain .* >= .* relative \\(fails\\)"):
        run.give(CommandKind.FOSSILIZE)
    torch.manual_seed(0)
    bed, optimizer = make_bed(
        Host(), paths=("block.0", "mix"), rules=EASY, incubation=Incubation.DIRECT
    )
    train_epoch(bed, optimizer, 0)
    bed.close_epoch(moment(0))
    for path in bed.slots:
        bed.apply(command(CommandKind.GERMINATE, slot=path), moment(0))
    for epoch in (1, 2):
        train_epoch(bed, optimizer, epoch)
        bed.close_epoch(moment(epoch, objective=0.8))
    seeds = [slot.record.seed for slot in bed.slots.values()]
    assert seeds[0] is not None
    assert seeds[1] is not None
    assert seeds[0].gain == seeds[1].gain == pytest.approx(0.2)
    assert seeds[0].rent == seeds[1].rent


def test_growth_never_draws_from_the_runs_random_stream() -> None:
    run = Run()
    run.boundary()
    state = torch.get_rng_state()
    run.give(CommandKind.GERMINATE)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_beds_grow_the_same_seed_and_another_seed_another() -> None:
    def planted(number: int) -> Tensor:
        run = Run(rules=LifecycleRules(seed=number))
        run.boundary()
        run.give(CommandKind.GERMINATE)
        assert run.slot.seed is not None
        return next(run.slot.seed.parameters()).detach()

    assert torch.equal(planted(1), planted(1))
    assert not torch.equal(planted(1), planted(2))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"slot": "nowhere"}, UnknownSlot, "'nowhere' is not a slot; slots: \\['mix'\\]"),
        ({"blueprint": "rose"}, UnknownBlueprint, "'rose'"),
        ({"blueprint": "loud"}, InvalidArgument, "not exactly 0 at birth"),
    ],
)
def test_a_bad_command_changes_nothing(
    change: dict[str, str], error: type[Exception], text: str
) -> None:
    run = Run(incubation=Incubation.DIRECT)
    run.boundary()
    before = snapshot(run)
    with pytest.raises(error, match=text):
        run.give(CommandKind.GERMINATE, **change)
    assert equal(before, snapshot(run))


def test_a_seed_beyond_the_budget_is_culled_at_germination() -> None:
    run = Run(rules=LifecycleRules(gates=GateRules(max_parameters=10)))
    run.boundary()
    assert run.give(CommandKind.GERMINATE) == [SeedStage.GERMINATED, SeedStage.CULLED]
    assert "network parameters" in run.slot.record.reason


def test_a_training_loss_that_is_not_finite_stops_with_a_remedy() -> None:
    run = Run()
    run.bed.watch.start_epoch()
    run.bed.watch.after_step(torch.tensor(float("nan")))
    with pytest.raises(NonFiniteTraining, match="NaN or infinity in the data"):
        run.bed.close_epoch(moment(0))


def test_a_slot_that_is_bypassed_is_an_error() -> None:
    class Bypass(Host):
        def forward(self, x: Tensor) -> Tensor:
            h = F.conv2d(self.block(x), self.mix.weight, self.mix.bias, stride=2, padding=1)
            return self.head(h.mean((2, 3)))

    bed, _ = make_bed(Bypass())
    with pytest.raises(SlotUnsuitable, match="never calls slot 'mix'"):
        bed.close_epoch(moment(0))


def test_a_network_begins_with_branches_that_are_given() -> None:
    from esper_lightning.leyline import GrownSeed

    bed, optimizer = make_bed(Host())
    alone = bed.num_parameters()
    bed.start_with([GrownSeed(slot="mix", blueprint="conv")])
    bed.bind(optimizer)
    assert bed.num_parameters() > alone
    held = [g["name"] for g in optimizer.param_groups if g.get("name") and g["params"]]
    assert held == ["fossil:mix/decay", "fossil:mix/no_decay"]
    with pytest.raises(UnknownSlot, match="nowhere"):
        bed.start_with([GrownSeed(slot="nowhere", blueprint="conv")])


def test_commands_default_to_the_beds_incubation_and_may_name_their_own() -> None:
    run = Run(incubation=Incubation.DIRECT)
    run.boundary()
    isolated = AdaptationCommand(
        id="1",
        run_id="run",
        kind=CommandKind.GERMINATE,
        slot="mix",
        blueprint="loud",
        incubation=Incubation.STRAIGHT_THROUGH,
    )
    run.bed.apply(isolated, moment(run.epoch))
    assert run.slot.record.stage is SeedStage.TRAINING
