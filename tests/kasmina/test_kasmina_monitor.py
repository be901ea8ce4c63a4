"""The isolation monitor finds what disturbs the host, blames it, and quarantines it."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from seedlings import SEEDLINGS, Conv, Host, batches, command, make_bed, moment
from torch import Tensor, nn

from esper_lightning.kasmina import Branch, FlopMeter, LifecycleRules, SecondPasses, SeedBed
from esper_lightning.kasmina.isolation import disturbing
from esper_lightning.leyline import (
    CommandKind,
    CommandRefused,
    Incubation,
    ParameterValue,
    SeedStage,
    SlotShape,
)

LOUDNESS = [1.0]
WALL: list[nn.Module] = []


class Ear(nn.Module):
    """A layer that listens to a number that anyone can change, once."""

    def forward(self, x: Tensor) -> Tensor:
        heard, LOUDNESS[0] = LOUDNESS[0], 1.0
        return x * heard


class Shouter(Conv):
    """Changes what the host computes afterwards."""

    def forward(self, x: Tensor) -> Tensor:
        LOUDNESS[0] = 1.001 if self.training else 1.0
        return super().forward(x)


class Gambler(Conv):
    """Draws random numbers in its backward pass, where no stream of its own is in place."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient + 0 * torch.rand(()))
        return output


class Scribbler(Conv):
    """Writes to a parameter of the host."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            next(WALL[0].parameters()).mul_(1.0)
        return super().forward(x)


class Roller(Conv):
    """Draws from Python's generator in its backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * (1 + 0 * random.random()))
        return output


DISTURBERS: Mapping[str, type[Conv]] = {
    "shouter": Shouter,
    "gambler": Gambler,
    "scribbler": Scribbler,
    "roller": Roller,
}


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    known: Mapping[str, Any] = {**SEEDLINGS, **DISTURBERS}
    branch: Branch = known[name](shape)
    return branch


class Listening(Host):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(6, 6, 1)
        self.ear = Ear()

    def forward(self, x: Tensor) -> Tensor:
        h = self.ear(self.last(self.act(self.mix(self.block(x)))))
        return self.head(self.dropout(h.mean((2, 3))))


class Watched:
    """A host with seeds in training, and the monitor."""

    def __init__(self, *, rules: LifecycleRules | None = None, **blueprints: str) -> None:
        torch.manual_seed(0)
        LOUDNESS[0] = 1.0
        self.host = Listening()
        WALL[:] = [self.host.head]
        self.meter = FlopMeter()
        rules = rules or LifecycleRules()
        self.bed: SeedBed
        self.bed, self.optimizer = make_bed(
            self.host,
            paths=tuple(blueprints),
            build=build,
            rules=rules,
            incubation=Incubation.STRAIGHT_THROUGH,
            second_passes=True,
        )
        self.passes = SecondPasses(self.host, self.bed.slots, rules=rules, meter=self.meter)
        for path, blueprint in blueprints.items():
            self.bed.apply(
                command(CommandKind.GERMINATE, slot=path, blueprint=blueprint), moment(0)
            )
            assert self.bed.slots[path].record.stage is SeedStage.TRAINING

    def loss(self) -> Tensor:
        x, y = batches(1)[0]
        return F.cross_entropy(self.host(x), y)

    def check(self, epoch: int) -> None:
        self.passes.run(self.loss, epoch=epoch, batch=0, size=8, topology="t", scale=1.0)

    def found(self) -> list[str]:
        return disturbing(self.host, self.bed.slots, self.loss)


@pytest.mark.parametrize("blueprint", SEEDLINGS)
def test_a_seed_that_keeps_to_itself_is_not_blamed(blueprint: str) -> None:
    watched = Watched(mix=blueprint)
    assert watched.found() == []


@pytest.mark.parametrize("blueprint", DISTURBERS)
def test_the_disturber_is_blamed_and_nobody_else(blueprint: str) -> None:
    watched = Watched(mix=blueprint, last="conv")
    assert watched.found() == ["mix"]
    watched = Watched(mix="nan", last=blueprint)
    assert watched.found() == ["last"]


def test_all_are_blamed_for_what_lasts_and_cannot_be_told_apart() -> None:
    watched = Watched(mix="conv", last="nan")
    calls = [0]

    def loss() -> Tensor:
        calls[0] += 1
        return watched.loss() * (1.0 if calls[0] == 1 else 1.01)

    assert disturbing(watched.host, watched.bed.slots, loss) == ["mix", "last"]


def test_a_host_that_does_not_repeat_itself_blames_no_seed() -> None:
    watched = Watched(mix="conv")
    noise = iter(np.random.default_rng(0).normal(size=64))

    def loss() -> Tensor:
        return watched.loss() * (1.0 + 1e-6 * float(next(noise)))

    assert disturbing(watched.host, watched.bed.slots, loss) == []


def test_checking_changes_nothing() -> None:
    watched = Watched(mix="polluter")
    weights = {name: value.clone() for name, value in watched.host.state_dict().items()}
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    watched.passes._check(watched.loss)
    after = watched.host.state_dict()
    record = watched.bed.slots["mix"].record.seed
    assert record is not None
    assert record.isolation_checks == 1
    assert all(
        torch.equal(after[name], value)
        for name, value in weights.items()
        if not name.endswith("_extra_state")
    )
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.random.get_state()[1].tolist() == generators[1]
    assert random.getstate() == generators[2]


def test_three_violations_quarantine_the_seed() -> None:
    watched = Watched(mix="shouter", last="conv")
    slot, neighbour = watched.bed.slots["mix"], watched.bed.slots["last"]
    for epoch in range(2):
        watched.check(epoch)
    assert slot.record.seed is not None
    assert slot.record.seed.isolation_violations == 2
    assert slot.takes_part
    watched.check(2)
    assert slot.record.seed.quarantined
    assert not slot.takes_part
    assert neighbour.takes_part
    assert neighbour.record.seed is not None
    assert (neighbour.record.seed.isolation_checks, neighbour.record.seed.isolation_violations) == (
        3,
        0,
    )
    # Silenced at once: the host is left alone before the boundary comes.
    LOUDNESS[0] = 1.0
    watched.loss().backward()
    assert LOUDNESS[0] == 1.0
    assert slot.seed is not None
    assert all(p.grad is None and not p.requires_grad for p in slot.seed.parameters())
    # The boundary culls it, and it does not come back.
    changes = watched.bed.close_epoch(moment(2))
    mine = [change for change in changes if change.slot == "mix"]
    assert [change.after for change in mine] == [SeedStage.CULLED]
    assert "quarantined: it disturbed the host 3 times" in mine[0].reason
    assert slot.seed is None
    assert slot.record.quarantined == ["shouter"]
    for epoch in range(3, 9):
        watched.bed.close_epoch(moment(epoch))
    assert slot.record.stage is SeedStage.DORMANT
    with pytest.raises(CommandRefused, match="'shouter' is in quarantine in slot 'mix'"):
        watched.bed.apply(command(CommandKind.GERMINATE, blueprint="shouter"), moment(9))
    assert slot.record.stage is SeedStage.DORMANT
    watched.bed.apply(command(CommandKind.GERMINATE, blueprint="conv"), moment(9))
    assert slot.record.stage is SeedStage.TRAINING


def test_a_violation_keeps_a_seed_in_training() -> None:
    watched = Watched(mix="shouter", last="conv")
    watched.check(0)
    for step, (x, y) in enumerate(batches(3)):
        watched.optimizer.zero_grad()
        watched.bed.watch.before_step(step)
        F.cross_entropy(watched.host(x), y).backward()
        watched.bed.watch.after_backward()
        watched.bed.watch.before_optimizer_step(step)
        watched.optimizer.step()
        watched.bed.watch.after_step(None)
    watched.bed.close_epoch(moment(1))
    assert watched.bed.slots["mix"].record.stage is SeedStage.TRAINING
    assert "isolation violations 1 <= 0 (fails)" in watched.bed.slots["mix"].record.reason
    assert watched.bed.slots["last"].record.stage is SeedStage.BLENDING


def test_the_cadence_is_in_epochs_and_every_new_seed_is_checked() -> None:
    watched = Watched(rules=LifecycleRules(monitor_every=4), mix="conv")
    record = watched.bed.slots["mix"].record.seed
    assert record is not None
    counts = []
    for epoch in range(1, 10):
        for _ in range(2):  # at most once an epoch
            watched.check(epoch)
        counts.append(record.isolation_checks)
    assert counts == [1, 1, 1, 2, 2, 2, 2, 3, 3]
    off = Watched(rules=LifecycleRules(monitor_every=None), mix="conv")
    off.check(0)
    seed = off.bed.slots["mix"].record.seed
    assert seed is not None
    assert seed.isolation_checks == 0
    assert not off.passes.are_due(epoch=0, batch=0)


def test_a_check_is_on_the_bill() -> None:
    watched = Watched(mix="conv")
    watched.meter.begin("t")
    watched.loss().backward()
    watched.meter.backward()
    watched.check(0)
    watched.meter.end("t", 8)
    step = watched.meter.per_sample("t")
    assert step
    checked = watched.meter.total - 8 * step
    # One pass with the seed, one without.
    assert 1.5 * 8 * step < checked < 2.5 * 8 * step


def test_quarantine_survives_a_round_trip() -> None:
    watched = Watched(mix="shouter")
    for epoch in range(3):
        watched.check(epoch)
    saved = watched.host.state_dict()
    again = Watched(mix="conv")
    again.host.load_state_dict(saved)
    slot = again.bed.slots["mix"]
    assert slot.record.seed is not None
    assert slot.record.seed.quarantined
    assert slot.seed is not None
    assert not any(p.requires_grad for p in slot.seed.parameters())
