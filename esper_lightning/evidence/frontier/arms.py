"""The arms of the benchmark: what is done with a task, as overrides of ``train.py``."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from esper_lightning.evidence.frontier.rows import SUMMARY_NAME, Row
from esper_lightning.evidence.frontier.tasks import Task
from esper_lightning.leyline import RunSummary


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What is known when an arm begins: its task, and the runs of the same seed that it needs.

    Attributes:
        task: with the epochs of this benchmark.
        rows: by arm.
        folder: of each arm's run.
    """

    task: Task
    rows: Mapping[str, Row]
    folder: Callable[[str], Path]

    def summary(self, arm: str) -> RunSummary:
        """Of one of the runs."""
        return self.rows[arm].summary

    def flops(self, arm: str) -> float:
        """Training FLOPs of one of the runs."""
        total = self.summary(arm).training_flops
        assert total is not None
        return total


Overrides = Callable[[Done], list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One way of training.

    Attributes:
        name: in rows and folders.
        title: in tables.
        overrides: of ``train.py``, beyond those of the task.
        needs: arms whose runs of the same seed come first.
        group: ``main``; ``sweep`` for the parts of a search for the best width; ``ablation`` for
            growth with one part changed.
    """

    name: str
    title: str
    overrides: Overrides
    needs: tuple[str, ...] = ()
    group: str = "main"


NEVER = "tamiyo=never"


def _always(*overrides: str) -> Overrides:
    return lambda done: list(overrides)  # noqa: ARG005


def _retrained(done: Done) -> list[str]:
    """What ended in the grown network is there from the beginning, freshly initialised."""
    return [NEVER, f"kasmina.fossils='{done.folder('grown') / SUMMARY_NAME}'"]


def _widened(done: Done) -> list[str]:
    """The host of the width whose size is nearest to the grown network's."""
    return [NEVER, f"host.width={nearest_width(done.task, done.summary('grown').parameters)}"]


def nearest_width(task: Task, parameters: int) -> int:
    """The width at which the task's host has about so many parameters."""
    width = task.width
    while task.parameters(width) < parameters:
        width += task.step
    if width == task.width:
        return width
    narrower = width - task.step
    above, below = task.parameters(width) - parameters, parameters - task.parameters(narrower)
    return width if above <= below else narrower


def _at_equal_flops(whole: str, overrides: Overrides) -> Overrides:
    """As many steps as cost what the grown network's training did."""

    def shortened(done: Done) -> list[str]:
        share = done.flops("grown") / done.flops(whole)
        steps = max(1, round(share * done.summary(whole).steps))
        epochs = math.ceil(share * done.task.epochs) + 1
        return [*overrides(done), f"++trainer.max_steps={steps}", f"trainer.max_epochs={epochs}"]

    return shortened


def _width(index: int) -> Overrides:
    return lambda done: [NEVER, f"host.width={done.task.widths[index]}"]


def _width_in_a_cheap_sweep(index: int) -> Overrides:
    """All widths together cost what the grown network's training did."""

    def shortened(done: Done) -> list[str]:
        all_of_them = sum(done.flops(arm) for arm in SWEEP)
        share = done.flops("grown") / all_of_them
        steps = max(1, round(share * done.summary(SWEEP[index]).steps))
        return [*_width(index)(done), f"++trainer.max_steps={steps}"]

    return shortened


def _random(done: Done) -> list[str]:
    """As many actions, on average, as the heuristic took: a planting and what became of it."""
    summary = done.summary("grown")
    seeds = len(summary.grown) + len(summary.culled)
    rate = 2 * seeds / (done.task.num_slots * summary.epochs)
    return ["tamiyo=random", f"tamiyo.policy.action_rate={min(1.0, max(rate, 0.01)):.4f}"]


NUM_WIDTHS = 5
"""Widths that every task names for the sweep."""

SWEEP = tuple(f"width_{number}" for number in range(NUM_WIDTHS))
CHEAP_SWEEP = tuple(f"short_width_{number}" for number in range(NUM_WIDTHS))

_ROWS = (
    Arm(name="grown", title="grown", overrides=_always("tamiyo=heuristic")),
    Arm(name="host", title="host alone", overrides=_always(NEVER)),
    Arm(
        name="retrained",
        title="grown topology from scratch",
        overrides=_retrained,
        needs=("grown",),
    ),
    Arm(
        name="retrained_equal_flops",
        title="grown topology from scratch, equal FLOPs",
        overrides=_at_equal_flops("retrained", _retrained),
        needs=("grown", "retrained"),
    ),
    Arm(
        name="widened",
        title="host widened to the grown size",
        overrides=_widened,
        needs=("grown",),
    ),
    Arm(
        name="widened_equal_flops",
        title="host widened to the grown size, equal FLOPs",
        overrides=_at_equal_flops("widened", _widened),
        needs=("grown", "widened"),
    ),
    Arm(
        name="inserted",
        title="inserted at half, no lifecycle",
        overrides=_always(
            "governor=none",
            "kasmina.rules.gates.judge_gain=false",
            "tamiyo.policy.min_improvement=-1000",  # no plateau is one: half of the run decides
        ),
    ),
    Arm(name="periodic", title="grown, periodic", overrides=_always("tamiyo=periodic")),
    Arm(name="random", title="grown, random", overrides=_random, needs=("grown",)),
    *(
        Arm(name=name, title=f"width {number}", overrides=_width(number), group="sweep")
        for number, name in enumerate(SWEEP)
    ),
    *(
        Arm(
            name=name,
            title=f"width {number}, short",
            overrides=_width_in_a_cheap_sweep(number),
            needs=("grown", *SWEEP),
            group="sweep",
        )
        for number, name in enumerate(CHEAP_SWEEP)
    ),
    Arm(
        name="earlier_recipe",
        title="series, isolated, cosine",
        overrides=_always(
            "kasmina.incubation=straight_through",
            "schedule=cosine",
            "tamiyo.policy.blueprints=[conv_residual,mlp_residual]",
        ),
        group="ablation",
    ),
    Arm(
        name="straight_through",
        title="isolated: straight-through",
        overrides=_always("kasmina.incubation=straight_through"),
        group="ablation",
    ),
    Arm(
        name="shadow",
        title="isolated: shadow",
        overrides=_always("kasmina.incubation=shadow"),
        group="ablation",
    ),
    Arm(
        name="series",
        title="series branches only",
        overrides=_always("tamiyo.policy.blueprints=[conv_residual,mlp_residual]"),
        group="ablation",
    ),
    Arm(
        name="cosine",
        title="cosine for all",
        overrides=_always("schedule=cosine"),
        group="ablation",
    ),
    Arm(
        name="no_governor",
        title="no governor",
        overrides=_always("governor=none"),
        group="ablation",
    ),
)

ARMS: Mapping[str, Arm] = MappingProxyType({row.name: row for row in _ROWS})
"""Every arm by its name; an arm comes after those that it needs."""


def with_needs(names: list[str]) -> list[str]:
    """The arms of ``names`` and all that they need, in the order of the table."""
    wanted = set(names)
    for arm in reversed(list(ARMS.values())):
        if arm.name in wanted:
            wanted.update(arm.needs)
    return [name for name in ARMS if name in wanted]
