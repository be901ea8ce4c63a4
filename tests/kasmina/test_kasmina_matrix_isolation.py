"""Promise 1 in full: blueprint x incubation x optimiser x condition, bit for bit."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import (
    CONDITIONS,
    OPTIMIZERS,
    PLANTINGS,
    Cell,
    MatrixHost,
    backward,
    batch,
    cells,
    differences,
    host_state,
    planting_id,
    seed_all,
)
from seedlings import make_bed, moment
from torch import nn

from esper_lightning import karn
from esper_lightning.karn import Blueprint
from esper_lightning.kasmina import FlopMeter, LifecycleRules, SecondPasses
from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    FeatureKind,
    Incubation,
    SeedStage,
)

STEPS = 5
PLANTED, ADVANCED, CULLED = 1, 2, 4
"""Steps before which the seed is planted, passes G0, and is culled."""

METER = FlopMeter()
Trace = list[dict[str, Any]]


def rules(condition: str) -> LifecycleRules:
    """The isolation monitor, which adds two passes to a step, runs under one condition."""
    return LifecycleRules(shadow_share=1.0, monitor_every=1 if condition == "all" else None)


@cache
def alone(kind: FeatureKind, optimizer: str, condition: str) -> Trace:
    """The host in an ordinary loop that knows nothing of slots."""
    seed_all()
    asked = CONDITIONS[condition]
    host = MatrixHost(kind, asked)
    made = OPTIMIZERS[optimizer](host.parameters())
    trace: Trace = []
    for step in range(STEPS):
        made.zero_grad()
        seen: dict[str, Any] = {}
        for part in range(asked.accumulate):
            out = backward(host, kind, step * asked.accumulate + part)
            seen |= {f"{name} of part {part}": value for name, value in out.items()}
        if asked.clip_norm is not None:
            nn.utils.clip_grad_norm_(host.parameters(), asked.clip_norm)
        if asked.clip_value is not None:
            nn.utils.clip_grad_value_(host.parameters(), asked.clip_value)
        made.step()
        trace.append(seen | host_state(host, made))
    return trace


def with_seed(cell: Cell) -> tuple[Trace, list[SeedStage], bool]:
    """The same host with a seed: its trace, the stage of each step, whether the seed trained."""
    seed_all()
    asked = CONDITIONS[cell.condition]
    host = MatrixHost(cell.kind, asked)
    bed, optimizer = make_bed(
        host,
        rules=rules(cell.condition),
        incubation=cell.incubation,
        make_optimizer=OPTIMIZERS[cell.optimizer],
        build=karn.build,
        example=batch(cell.kind, 99)[0],
        second_passes=True,
    )
    second = SecondPasses(host, bed.slots, rules=bed.rules, meter=METER)
    slot = bed.slots["mix"]
    trace: Trace = []
    stages: list[SeedStage] = []
    trained = False

    def give(kind: CommandKind, blueprint: str = "") -> None:
        bed.apply(
            AdaptationCommand(id="1", run_id="run", kind=kind, slot="mix", blueprint=blueprint),
            moment(0),
        )

    for step in range(STEPS):
        bed.watch.start_epoch()
        if step == PLANTED:
            slot.sample = None
            give(CommandKind.GERMINATE, cell.blueprint.name)
        if step == ADVANCED:
            give(CommandKind.ADVANCE)
        if step == CULLED:
            held = [] if slot.seed is None else list(slot.seed.parameters())
            trained = any(p.grad is not None and bool(p.grad.any()) for p in held)
            give(CommandKind.CULL)
        stages.append(slot.record.stage)
        bed.watch.before_step(step)
        optimizer.zero_grad()
        seen: dict[str, Any] = {}
        for part in range(asked.accumulate):
            number = step * asked.accumulate + part
            out = backward(host, cell.kind, number)
            seen |= {f"{name} of part {part}": value for name, value in out.items()}
            if second.are_due(epoch=0, batch=number):
                x, y = batch(cell.kind, number)
                second.run(
                    lambda x=x, y=y: nn.functional.cross_entropy(host(x), y),
                    epoch=0,
                    batch=number,
                    size=len(x),
                    topology=bed.topology(),
                    scale=1.0,
                )
            bed.watch.after_backward()
        bed.watch.before_optimizer_step(step)
        if asked.clip_norm is not None or asked.clip_value is not None:
            with bed.groups.without_seeds():
                held = [p for group in optimizer.param_groups for p in group["params"]]
                if asked.clip_norm is not None:
                    nn.utils.clip_grad_norm_(held, asked.clip_norm)
                if asked.clip_value is not None:
                    nn.utils.clip_grad_value_(held, asked.clip_value)
            bed.watch.clip_seeds(norm=asked.clip_norm, value=asked.clip_value)
        optimizer.step()
        bed.watch.after_step(None)
        if slot.record.seed is not None:
            violations = slot.record.seed.isolation_violations
            assert violations == 0, f"{cell}: the isolation monitor counts {violations}"
        trace.append(seen | host_state(host, optimizer))
    return trace, stages, trained


def isolated_until(cell: Cell) -> int:
    """Steps in which the promise holds: a direct seed speaks from its first update on."""
    return ADVANCED + 1 if cell.incubation is Incubation.DIRECT else STEPS


@pytest.mark.parametrize(("blueprint", "kind", "incubation"), PLANTINGS, ids=planting_id)
def test_the_host_is_bit_identical(
    blueprint: Blueprint, kind: FeatureKind, incubation: Incubation
) -> None:
    """While a seed waits and trains, and after it is culled; until its first update if direct."""
    for cell in cells(blueprint, kind, incubation):
        expected = alone(kind, cell.optimizer, cell.condition)
        trace, stages, trained = with_seed(cell)
        entered = SeedStage.PROBATIONARY if incubation is Incubation.DIRECT else SeedStage.TRAINING
        assert stages[:CULLED] == [SeedStage.DORMANT, SeedStage.GERMINATED, entered, entered], cell
        for step in range(isolated_until(cell)):
            changed = differences(expected[step], trace[step])
            assert not changed, f"{cell}: step {step} ({stages[step].name}) changed {changed}"
        assert trained, f"{cell}: the seed got no gradient, so nothing was tried"


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that hears its seed."""

    def add(host: torch.Tensor, seed: torch.Tensor, *, trust_radius: float) -> torch.Tensor:
        return host + 1e-6 + 0.0 * seed

    monkeypatch.setattr("esper_lightning.kasmina.slot.straight_through", add)


@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name != "all"])
@pytest.mark.usefixtures("leaky")
def test_the_comparison_notices_a_host_that_hears_its_seed(condition: str) -> None:
    cell = Cell(
        karn.get("low_rank"), FeatureKind.VECTOR, Incubation.STRAIGHT_THROUGH, "sgd", condition
    )
    trace, _, _ = with_seed(cell)
    expected = alone(cell.kind, cell.optimizer, condition)
    assert not differences(expected[PLANTED], trace[PLANTED]), "nobody hears it yet"
    assert differences(expected[ADVANCED], trace[ADVANCED])


@pytest.mark.usefixtures("leaky")
def test_the_monitor_notices_it_too() -> None:
    cell = Cell(karn.get("low_rank"), FeatureKind.VECTOR, Incubation.STRAIGHT_THROUGH, "sgd", "all")
    with pytest.raises(AssertionError, match="the isolation monitor counts 1"):
        with_seed(cell)


def test_the_readme_tells_how_many_cells_there_are() -> None:
    every = {str(cell) for planting in PLANTINGS for cell in cells(*planting)}
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    told = set(re.findall(r"([\d,]+) cells", readme))
    in_each = {len(list(cells(*planting))) for planting in PLANTINGS}
    assert told == {f"{len(every):,}", *map(str, in_each)}
    assert set(re.findall(r"(\d+) tests", readme)) == {str(len(PLANTINGS))}
