"""Policies, tasks and what runs would reach, for the tests of validation."""

import random
from collections.abc import Mapping, Sequence

import torch

from esper_lightning.leyline import RunSummary
from esper_lightning.simic.rollouts import RolloutTask
from esper_lightning.simic.validation import (
    Check,
    Gate,
    Judged,
    Measured,
    Resampling,
    Rule,
    Timing,
    Trial,
    Verdict,
)
from esper_lightning.simic.validation.rule import differences
from esper_lightning.simic.validation.verdict import objections
from esper_lightning.tamiyo.learned import Architecture, PolicyNetwork, StoredPolicy

QUICK = Rule(resampling=Resampling(num=999))
TASKS = tuple(RolloutTask(name=f"task {number}", options=(f"n={number}",)) for number in range(8))
SEEDS = range(4)
WORTH = {
    "candidate": 0.3,
    "current": 0.2,
    "heuristic": 0.2,
    "random": 0.05,
    "never": 0.0,
    "periodic": 0.1,
}
BEHAVES = (Check(name="legality", num=10, failures=0),)


def stored(weights: int = 0, *, name: str = "learned", version: int = 1) -> StoredPolicy:
    with torch.random.fork_rng():
        torch.manual_seed(weights)
        network = PolicyNetwork(Architecture(width=16, depth=1, heads=2))
    return StoredPolicy.of(network, name=name, version=version, provenance={"weights": weights})


def measured(
    worth: Mapping[str, float] = WORTH,
    *,
    tasks: int = 8,
    seeds: int = 4,
    between: float = 0.03,
    within: float = 0.05,
    seed: int = 0,
) -> tuple[Measured, ...]:
    """Utilities around ``worth``: tasks differ from each other, and runs of one.

    Args:
        worth: mean, by who decides.
        tasks: how many.
        seeds: of each.
        between: standard deviation of what one decider is worth more on a task.
        within: the same of a run.
        seed: of the drawing.
    """
    draw = random.Random(seed)
    found = []
    for task in range(tasks):
        easy = draw.gauss(0, 0.1)
        own = {who: each + draw.gauss(0, between) for who, each in worth.items() if who != "never"}
        for number in range(seeds):
            told = {who: easy + each + draw.gauss(0, within) for who, each in own.items()}
            utilities = told | {"never": 0.0}
            found.append(Measured(task=f"task {task}", seed=number, utilities=utilities))
    return tuple(found)


def verdict(
    candidate: StoredPolicy,
    current: StoredPolicy,
    *,
    found: tuple[Measured, ...] | None = None,
    checks: tuple[Check, ...] = BEHAVES,
) -> Verdict:
    """What a gate would say if this had been measured."""
    pairs = measured() if found is None else found
    against = objections(checks, pairs, QUICK)
    shown = differences(pairs, QUICK)
    return Verdict(
        passed=not against,
        reasons=against or tuple(map(str, shown)),
        candidate=Judged.of(candidate),
        current=Judged.of(current),
        rule=QUICK,
        checks=checks,
        timing=Timing(p50_ms=1.0, p95_ms=2.0, num=10),
        differences=shown,
        measured=pairs,
        tasks={task.name: task.options for task in TASKS},
        versions={},
    )


class Written:
    """Says what runs reached without any; remembers what it was asked.

    Args:
        found: what they reached, in the order of tasks and seeds.
    """

    def __init__(self, found: Sequence[Measured]) -> None:
        self._found = {(each.task, each.seed): each.utilities for each in found}
        self.trials: list[Trial] = []

    def __call__(self, trials: Sequence[Trial]) -> list[float | None]:
        self.trials += trials
        return [self._found[each.task.name, each.seed].get(each.who) for each in trials]


def gate(utilities: Written, rule: Rule = QUICK) -> Gate:
    return Gate(utilities=utilities, tasks=TASKS, seeds=SEEDS, rule=rule, num_states=10)


def summary(loss: float) -> RunSummary:
    """Of a run that ended with this loss on validation."""
    return RunSummary(
        run_id="r",
        outcome="finished",
        seed=0,
        host="CNN",
        policy="p",
        incubation="direct",
        epochs=10,
        steps=100,
        validation={"val/loss": loss},
        test={"test/loss": 0.0},
        host_parameters=100,
        parameters=100,
        host_flops_per_sample=1.0,
        flops_per_sample=1.0,
        host_training_flops=1e6,
        training_flops=1e6,
        wall_s=1.0,
        grown=(),
        culled=(),
        versions={},
    )
