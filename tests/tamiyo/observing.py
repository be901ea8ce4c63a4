"""Observers, states and small networks for the tests of what a policy sees and learns."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from growing_run import CATALOGUE, slot, state

from esper_lightning.leyline import LayerState, SeedStage, SeedState, SystemState
from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tamiyo.learned import Architecture, Learned, PolicyNetwork, StoredPolicy
from esper_lightning.tamiyo.observation import Observer
from esper_lightning.tamiyo.shortlist import Shortlist

SMALL = Architecture(width=16, depth=1, heads=2)


def observer(budget: GrowthBudget | None = None, **options: Any) -> Observer:
    settings = {"catalogue": CATALOGUE} | options
    return Observer(Shortlist(**settings), budget or GrowthBudget())


def network(seed: int = 0, architecture: Architecture = SMALL) -> PolicyNetwork:
    """One whose biases and embeddings are not 0 either, so that a forgotten one is noticed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = PolicyNetwork(architecture)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def stored(seed: int = 0, architecture: Architecture = SMALL) -> StoredPolicy:
    return StoredPolicy.of(network(seed, architecture), name="test", version=3)


def learned(weights: int = 0, **options: Any) -> Learned:
    settings = {
        "catalogue": CATALOGUE,
        "policy": stored(weights),
        "budget": GrowthBudget(),
    } | options
    return Learned(**settings)


def chain(*paths: str) -> tuple[LayerState, ...]:
    """Layers of which each reads the one before it."""
    return tuple(
        LayerState(path=path, module="Linear", num_parameters=10 * (place + 1), reads=reads)
        for place, (path, reads) in enumerate(
            zip(paths, [(), *((each,) for each in paths)], strict=False)
        )
    )


def busy(seed: int = 0, *, epoch: int = 5, names: Sequence[str] = "abcdef") -> SystemState:
    """A plausible boundary: some slots free, some with a seed on trial, all measured."""
    draw = random.Random(seed)
    gain = draw.gauss(0, 0.1)  # of the cohort
    slots: list[SeedState] = []
    for name in names:
        stage = draw.choice((SeedStage.DORMANT, SeedStage.DORMANT, SeedStage.PROBATIONARY))
        made = slot(name, stage, pressure=draw.random(), num_culls=draw.choice((0, 0, 1)))
        if stage is SeedStage.PROBATIONARY:
            made = msgspec.structs.replace(made, gain=gain, rent=0.01)
        slots.append(made)
    return state(*slots, epoch=epoch, layers=chain("in", *names, "out"), learning_rate=0.1)
