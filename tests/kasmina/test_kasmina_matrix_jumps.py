"""Promise 2 in full: blueprint x incubation x optimiser x condition; growth makes no jump."""

from collections.abc import Callable

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
    planting_id,
    seed_all,
)
from seedlings import make_bed, moment
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.karn import Blueprint
from esper_lightning.kasmina import FlopMeter, GateRules, LifecycleRules, SecondPasses
from esper_lightning.kasmina.random_stream import undisturbed_random
from esper_lightning.leyline import (
    AdaptationCommand,
    BlendSchedule,
    CommandKind,
    FeatureKind,
    Incubation,
    SeedStage,
    StageChanged,
)

METER = FlopMeter()
RULES = LifecycleRules(
    blend=BlendSchedule(num_steps=1),
    min_ages={"PROBATIONARY": 1},
    shadow_share=1.0,
    monitor_every=None,
    gates=GateRules(
        min_gradient_norm=0.0,
        max_gradient_spread=1e9,
        max_loss_spread=1e9,
        max_regression=1e9,
        max_output_ratio=1e9,
        price_per_parameter=0.0,
        price_per_flop=0.0,
        window=1,
    ),
)
"""Every gate is open: what is tried is the moves, not who is let through."""

ISOLATED = [
    SeedStage.GERMINATED,
    SeedStage.TRAINING,
    SeedStage.BLENDING,
    SeedStage.SHADOWING,
    SeedStage.PROBATIONARY,
    SeedStage.FOSSILIZED,
]
DIRECT = [SeedStage.GERMINATED, SeedStage.PROBATIONARY, SeedStage.FOSSILIZED]


class Life:
    """One seed from planting to fossil, and the jump in the output at each boundary."""

    def __init__(self, cell: Cell) -> None:
        seed_all()
        self.cell, self.asked = cell, CONDITIONS[cell.condition]
        self.host = MatrixHost(cell.kind, self.asked)
        self.bed, self.optimizer = make_bed(
            self.host,
            rules=RULES,
            incubation=cell.incubation,
            make_optimizer=OPTIMIZERS[cell.optimizer],
            build=karn.build,
            example=batch(cell.kind, 99)[0],
            second_passes=True,
        )
        self.second = SecondPasses(self.host, self.bed.slots, rules=RULES, meter=METER)
        self.slot = self.bed.slots["mix"]
        self.epoch = 0
        self.stages: list[SeedStage] = []
        self.jumps: dict[str, float] = {}

    def outputs(self) -> list[Tensor]:
        """In evaluation, under one condition in training too; looking changes nothing."""
        x = batch(self.cell.kind, 98)[0]
        buffers = [(b, b.clone()) for b in self.host.buffers()]
        found = []
        for training in (False, True) if self.cell.condition == "all" else (False,):
            self.host.train(training)
            with undisturbed_random(), torch.set_grad_enabled(training):
                found.append(self.host(x).detach())
        for buffer, before in buffers:
            buffer.detach().copy_(before)
        return found

    def watched(self, act: Callable[[], list[StageChanged]]) -> None:
        before = self.outputs()
        changes = act()
        after = self.outputs()
        name = " -> ".join(change.after.name for change in changes) or "no move"
        self.stages += [change.after for change in changes]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in before), self.cell
        jump = max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True))
        self.jumps[name] = max(jump, self.jumps.get(name, 0.0))

    def give(self, kind: CommandKind) -> None:
        blueprint = self.cell.blueprint.name if kind is CommandKind.GERMINATE else ""
        command = AdaptationCommand(
            id="1", run_id="run", kind=kind, slot="mix", blueprint=blueprint
        )
        now = moment(self.epoch - 1, objective=0.9**self.epoch)
        self.watched(lambda: self.bed.apply(command, now))

    def train_epoch(self) -> None:
        self.bed.watch.start_epoch()
        self.bed.watch.before_step(self.epoch * 10)
        self.optimizer.zero_grad()
        for part in range(self.asked.accumulate):
            number = self.epoch * self.asked.accumulate + part
            backward(self.host, self.cell.kind, number)
            if self.second.are_due(epoch=self.epoch, batch=number):
                x, y = batch(self.cell.kind, number)
                self.second.run(
                    lambda x=x, y=y: nn.functional.cross_entropy(self.host(x), y),
                    epoch=self.epoch,
                    batch=number,
                    size=len(x),
                    topology=self.bed.topology(),
                    scale=1.0,
                )
            self.bed.watch.after_backward()
        self.bed.watch.before_optimizer_step(0)
        self.optimizer.step()
        self.bed.watch.after_step(torch.tensor(1.0))
        self.bed.watch.before_step(self.epoch * 10 + 10)
        now = moment(self.epoch, objective=0.9 ** (self.epoch + 1))
        self.epoch += 1
        self.watched(lambda: self.bed.close_epoch(now))

    def run(self) -> None:
        self.train_epoch()
        self.give(CommandKind.GERMINATE)
        for _ in range(len(ISOLATED)):
            self.train_epoch()
            if self.slot.record.stage is SeedStage.PROBATIONARY and self.slot.record.age > 0:
                self.give(CommandKind.FOSSILIZE)
                return
        raise AssertionError(f"{self.cell}: stands at {self.slot.record}")


@pytest.mark.parametrize(("blueprint", "kind", "incubation"), PLANTINGS, ids=planting_id)
def test_no_move_makes_a_jump(
    blueprint: Blueprint, kind: FeatureKind, incubation: Incubation
) -> None:
    direct = incubation is Incubation.DIRECT
    for cell in cells(blueprint, kind, incubation):
        life = Life(cell)
        life.run()
        assert life.stages == (DIRECT if direct else ISOLATED), cell
        assert all(jump == 0.0 for jump in life.jumps.values()), f"{cell}: {life.jumps}"
        fossil = life.slot.fossils[0]
        with undisturbed_random():
            silent = life.outputs()[0]
            life.slot.fossils = nn.ModuleList()
            assert not torch.equal(life.outputs()[0], silent), f"{cell}: it never spoke"
        assert all(bool(torch.isfinite(p).all()) for p in fossil.parameters()), cell


def test_a_jump_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell(
        karn.get("low_rank"), FeatureKind.VECTOR, Incubation.STRAIGHT_THROUGH, "sgd", "plain"
    )
    life = Life(cell)
    monkeypatch.setattr(life.slot, "set_alpha", lambda value: life.slot.alpha.fill_(value or 0.5))
    life.run()
    noticed = [name for name, jump in life.jumps.items() if jump > 0.0]
    assert noticed[0] == "BLENDING", "alpha does not begin at 0"
