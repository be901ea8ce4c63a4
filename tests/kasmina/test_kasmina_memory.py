"""Planting and culling, or planting and keeping, leaves nothing behind but its history."""

import pytest

from esper_lightning.evidence import memory
from esper_lightning.evidence.memory import Census, Cycles
from esper_lightning.kasmina import GateRules, LifecycleRules
from esper_lightning.leyline import CommandKind, Incubation, SeedStage


@pytest.mark.slow
@pytest.mark.parametrize("incubation", [Incubation.DIRECT, Incubation.STRAIGHT_THROUGH])
def test_a_hundred_seeds_leave_nothing(incubation: Incubation) -> None:
    first, last = memory.run(cycles=100, looks=2, incubation=incubation)
    assert (first.cycles, last.cycles) == (10, 100)
    assert last.modules == first.modules
    # A step's last loss and sample may be alive or not when it is looked.
    assert abs(last.tensors - first.tensors) <= 4
    assert last.held == first.held
    assert last.record_bytes - first.record_bytes <= 180 * 100, "an entry for each cull, no more"


def test_a_seed_that_stays_somewhere_is_noticed() -> None:
    kept: list[object] = []
    life = Cycles()
    plain = life.cycle

    def leaky() -> None:
        plain()
        kept.append(life.slot.construct("parallel_conv", {}, rng_seed=0))

    life.cycle = leaky  # type: ignore[method-assign]
    found: list[Census] = []
    for _ in range(3):
        life.cycle()
        found.append(life.census())
    assert found[2].modules > found[1].modules > found[0].modules
    assert found[2].tensors - found[0].tensors > 4


def test_fossils_grow_to_their_limit_and_their_state_with_them() -> None:
    life = Cycles()
    life.bed.rules = LifecycleRules(
        max_fossils=3,
        min_ages={"PROBATIONARY": 1},
        gates=GateRules(price_per_parameter=0.0, price_per_flop=0.0, window=1),
    )
    held: list[int] = []
    while life.slot.record.stage is not SeedStage.TERMINATED:
        life._give(CommandKind.GERMINATE, "parallel_conv")
        life._close()
        life._close()
        life._give(CommandKind.FOSSILIZE)
        life._close()
        census = life.census()
        assert census.held[0] == census.held[1] == len(list(life.network.parameters()))
        held.append(census.held[0])
    assert len(held) == 3
    assert held[2] - held[1] == held[1] - held[0] > 0
    assert len(life.slot.fossils) == 3
    life._close()
    assert life.slot.record.stage is SeedStage.TERMINATED
