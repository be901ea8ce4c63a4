"""Removing fossils again: the last one first, without a jump, with nothing left behind."""

import pytest
import torch
from seedlings import batches, command, moment
from test_kasmina_lifecycle import EASY, Run, equal, snapshot
from torch import Tensor

from esper_lightning.kasmina import LifecycleRules, system_state
from esper_lightning.leyline import CommandKind, IllegalTransition, Incubation, SeedStage


def grown(num_fossils: int = 1) -> Run:
    """A run whose slot has fossils and is dormant again."""
    run = Run(incubation=Incubation.DIRECT)
    run.boundary()
    for _ in range(num_fossils):
        run.give(CommandKind.GERMINATE)
        run.boundary()
        run.boundary()
        run.give(CommandKind.FOSSILIZE)
        assert run.boundary() == [SeedStage.DORMANT]
    assert len(run.slot.fossils) == num_fossils
    return run


def output(run: Run) -> Tensor:
    with torch.no_grad():
        return run.bed.network.eval()(batches(1)[0][0])


def ramp_out(run: Run) -> list[float]:
    alphas = []
    for step in range(EASY.blend.num_steps + 1):
        run.bed.watch.before_step((run.slot.record.ramp_start or 0) + step)
        alphas.append(float(run.slot.alpha))
    return alphas


def test_a_fossil_leaves_by_a_ramp_and_the_slot_can_grow_again() -> None:
    run = grown()
    parameters = run.bed.num_parameters()
    fossil = list(run.slot.fossils[0].parameters())
    assert all(p in run.optimizer.state for p in fossil)
    before = output(run)
    assert run.give(CommandKind.PRUNE) == [SeedStage.CULLED]
    assert torch.equal(output(run), before), "nothing jumps"
    assert len(run.slot.fossils) == 0
    assert not any(p in run.optimizer.state for p in fossil)
    held = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert not held & {id(p) for p in fossil}
    alphas = ramp_out(run)
    assert alphas[0] == 1.0
    assert alphas[-1] == 0.0
    assert alphas == sorted(alphas, reverse=True)
    assert run.boundary() == [SeedStage.EMBARGOED]
    assert run.bed.num_parameters() == parameters - sum(p.numel() for p in fossil)
    assert run.boundary() == [SeedStage.RESETTING]
    assert run.boundary() == [SeedStage.DORMANT]
    (cull,) = run.slot.record.culls
    assert (cull.blueprint, cull.reason) == ("conv", "test")
    run.give(CommandKind.GERMINATE)
    assert run.slot.record.stage is SeedStage.PROBATIONARY


def test_after_the_ramp_the_host_computes_what_it_would_without_the_fossil() -> None:
    run = grown()
    run.give(CommandKind.PRUNE)
    ramp_out(run)
    faded = output(run)
    run.slot.seed = None
    assert torch.equal(output(run), faded)


def test_the_last_fossil_goes_first() -> None:
    run = grown(2)
    first, last = run.slot.fossils
    before = output(run)
    run.give(CommandKind.PRUNE)
    assert run.slot.seed is last
    assert list(run.slot.fossils) == [first]
    assert [p.grad for p in last.parameters()] == [None] * len(list(last.parameters()))
    assert torch.equal(output(run), before)
    assert all(p in run.optimizer.state for p in first.parameters())


def test_a_full_slot_gets_room_again() -> None:
    run = grown()
    run.bed.rules = LifecycleRules(max_fossils=1, gates=EASY.gates, blend=EASY.blend, embargo=1)
    run.slot.record.stage = SeedStage.TERMINATED
    run.give(CommandKind.PRUNE)
    stages = [stage for _ in range(4) for stage in run.boundary()]
    assert stages == [SeedStage.EMBARGOED, SeedStage.RESETTING, SeedStage.DORMANT]


def test_at_the_last_boundary_it_goes_at_once() -> None:
    run = grown()
    run.bed.apply(command(CommandKind.PRUNE), moment(run.epoch, last=True))
    assert run.slot.seed is None
    assert not run.slot.fossils


def test_a_slot_without_fossils_has_nothing_to_prune() -> None:
    run = Run()
    run.boundary()
    before = snapshot(run)
    with pytest.raises(IllegalTransition, match="PRUNE.*it has no fossil"):
        run.give(CommandKind.PRUNE)
    assert equal(before, snapshot(run))


def test_a_controller_sees_where_it_may_prune() -> None:
    def legal(run: Run) -> tuple[CommandKind, ...]:
        state = system_state(run.bed, moment(run.epoch), host_parameters=1)
        return state.slot("mix").legal

    assert CommandKind.PRUNE in legal(grown())
    bare = Run()
    bare.boundary()
    assert CommandKind.PRUNE not in legal(bare)


def test_a_fossil_that_leaves_is_saved_and_loaded() -> None:
    run = grown(2)
    run.give(CommandKind.PRUNE)
    run.bed.watch.before_step((run.slot.record.ramp_start or 0) + 2)
    assert 0 < float(run.slot.alpha) < 1
    saved = run.bed.network.state_dict()
    other = Run(incubation=Incubation.DIRECT)
    other.bed.network.load_state_dict(saved)
    assert other.slot.record.stage is SeedStage.CULLED
    assert len(other.slot.fossils) == 1
    assert torch.equal(output(other), output(run))
