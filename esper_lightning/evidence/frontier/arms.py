"""The arms of the benchmark: what is done with a task, as overrides of ``train.py``."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from esper_lightning.evidence.frontier import parts
from esper_lightning.evidence.frontier.rows import Row
from esper_lightning.evidence.frontier.tasks import NUM_SIZES, NUM_WIDER, Shape, Task
from esper_lightning.leyline import GrownSeed, RunSummary


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What is known when an arm begins: its task, and the runs of the same seed that it needs.

    Attributes:
        task: with the budget of this benchmark.
        rows: by arm.
    """

    task: Task
    rows: Mapping[str, Row]

    def summary(self, arm: str) -> RunSummary:
        """Of one of the runs."""
        return self.rows[arm].summary

    @property
    def growth_in_flops(self) -> float:
        """What growing cost, over what as many steps of the host alone would have."""
        summary = self.summary("grown")
        assert summary.training_flops is not None
        assert summary.host_training_flops is not None
        return summary.training_flops / summary.host_training_flops


Overrides = Callable[[Done], list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One way of training.

    Attributes:
        name: in rows and folders.
        title: in tables.
        overrides: of ``train.py``, beyond those of the task.
        needs: arms whose runs of the same seed come first.
        group: ``main``; ``sweep`` for the parts of a search for the best size; ``ablation`` for
            growth with one part changed.
    """

    name: str
    title: str
    overrides: Overrides
    needs: tuple[str, ...] = ()
    group: str = "main"


NEVER = "tamiyo=never"


def _growing(*overrides: str) -> Overrides:
    return lambda done: [*done.task.budget(), *overrides]


def _host(_: Done) -> list[str]:
    return [NEVER]


Part = Callable[[Done], Sequence[GrownSeed]]


def _all_that_was_grown(done: Done) -> Sequence[GrownSeed]:
    return done.summary("grown").grown


def _first_cohorts(number: int) -> Part:
    return lambda done: parts.first_cohorts(_all_that_was_grown(done), number)


def _from_scratch(part: Part) -> Overrides:
    """What was grown is there from the beginning, freshly initialised.

    Nothing may take it away: a rival is not governed.
    """
    return lambda done: [NEVER, "governor=none", parts.as_override(part(done))]


def _part_at_equal_flops(part: Part) -> Overrides:
    return _at_equal_flops(
        _from_scratch(part),
        lambda done: parts.flops(done.task, part(done)) / done.task.flops(done.task.shape),
    )


def _widened(done: Done) -> list[str]:
    """The host with about as many parameters as the grown network."""
    return [NEVER, *done.task.shaped(_grown_size(done))]


def _grown_size(done: Done) -> Shape:
    return nearest_size(done.task, done.summary("grown").parameters)


def nearest_size(task: Task, parameters: int) -> Shape:
    """The task's host, of the size at which it has about so many parameters."""
    smaller = larger = task.shape
    while task.parameters(larger) < parameters:
        smaller, larger = larger, task.sized(larger[task.dimension] + task.step)
    above, below = task.parameters(larger) - parameters, parameters - task.parameters(smaller)
    return larger if above <= below else smaller


def _at_equal_flops(overrides: Overrides, cost: Callable[[Done], float]) -> Overrides:
    """As many steps as cost what the grown network's training did.

    Args:
        overrides: for the network.
        cost: its training FLOPs for a sample, over those of the host.
    """

    def as_long(done: Done) -> list[str]:
        grown = done.summary("grown")
        share = done.growth_in_flops / cost(done)
        steps = max(1, round(share * grown.steps))
        epochs = math.ceil(share * grown.epochs) + 1
        return [*overrides(done), f"++trainer.max_steps={steps}", f"trainer.max_epochs={epochs}"]

    return as_long


def _cost_of_the_widened(done: Done) -> float:
    return _cost(done.task, _grown_size(done))


def _cost(task: Task, shape: Shape) -> float:
    return task.flops(shape) / task.flops(task.shape)


def _size(index: int) -> Callable[[Task], Shape]:
    return lambda task: task.sized(task.sizes[index])


def _wider(index: int) -> Callable[[Task], Shape]:
    return lambda task: task.wider[index]


def _static(shape: Callable[[Task], Shape]) -> Overrides:
    return lambda done: [NEVER, *done.task.shaped(shape(done.task))]


def _static_at_equal_flops(shape: Callable[[Task], Shape]) -> Overrides:
    return _at_equal_flops(_static(shape), lambda done: _cost(done.task, shape(done.task)))


def _size_in_a_cheap_sweep(index: int) -> Overrides:
    """As many steps as all the others, and all together cost what growing did."""
    return _at_equal_flops(
        _static(_size(index)),
        lambda done: sum(_cost(done.task, _size(other)(done.task)) for other in range(NUM_SIZES)),
    )


def _random(done: Done) -> list[str]:
    """As many actions, on average, as the heuristic took: a planting and what became of it."""
    summary = done.summary("grown")
    seeds = len(summary.grown) + len(summary.culled)
    rate = 2 * seeds / (done.task.num_slots * summary.epochs)
    return [
        *done.task.budget(),
        "tamiyo=random",
        f"tamiyo.policy.action_rate={min(1.0, max(rate, 0.01)):.4f}",
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Static:
    """A static network: its title, and its shape on a task."""

    title: str
    shape: Callable[[Task], Shape]


FRONTIER: Mapping[str, Static] = {
    "host_equal_flops": Static(title="host alone", shape=_size(0)),
    **{
        f"size_{at}_equal_flops": Static(title=f"size {at}", shape=_size(at))
        for at in range(1, NUM_SIZES)
    },
    **{
        f"wider_{at}_equal_flops": Static(title=f"wider {at}", shape=_wider(at))
        for at in range(NUM_WIDER)
    },
}
"""Arms of hosts of other shapes, each for as many FLOPs as growing."""

FIRST = {f"first_{number}_equal_flops": number for number in (1, 2)}
"""Arms of what the first cohorts made of the host, from scratch, likewise; and how many cohorts."""

RIVALS = (*FRONTIER, *FIRST)
"""Static networks of which growth has to beat the best."""

SWEEP = tuple(f"size_{number}" for number in range(NUM_SIZES))
CHEAP_SWEEP = tuple(f"short_size_{number}" for number in range(NUM_SIZES))

_ROWS = (
    Arm(name="grown", title="grown", overrides=_growing("tamiyo=heuristic")),
    Arm(name="host", title="host alone", overrides=_host),
    Arm(
        name="retrained",
        title="grown topology from scratch",
        overrides=_from_scratch(_all_that_was_grown),
        needs=("grown",),
    ),
    Arm(
        name="retrained_equal_flops",
        title="grown topology from scratch, equal FLOPs",
        overrides=_part_at_equal_flops(_all_that_was_grown),
        needs=("grown",),
    ),
    *(
        Arm(
            name=name,
            title=f"first {number} of the grown cohorts from scratch, equal FLOPs",
            overrides=_part_at_equal_flops(_first_cohorts(number)),
            needs=("grown",),
        )
        for name, number in FIRST.items()
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
        overrides=_at_equal_flops(_widened, _cost_of_the_widened),
        needs=("grown",),
    ),
    Arm(
        name="inserted",
        title="inserted at half, no lifecycle",
        overrides=_growing(
            "governor=none",
            "kasmina.rules.gates.judge_gain=false",
            "tamiyo.policy.min_improvement=-1000",  # no plateau is one: half of the run decides
        ),
    ),
    Arm(name="periodic", title="grown, periodic", overrides=_growing("tamiyo=periodic")),
    Arm(name="random", title="grown, random", overrides=_random, needs=("grown",)),
    *(
        Arm(
            name=name,
            title=f"{static.title}, equal FLOPs",
            overrides=_static_at_equal_flops(static.shape),
            needs=("grown",),
        )
        for name, static in FRONTIER.items()
    ),
    *(
        Arm(name=name, title=f"size {number}", overrides=_static(_size(number)), group="sweep")
        for number, name in enumerate(SWEEP)
    ),
    *(
        Arm(
            name=name,
            title=f"size {number}, short",
            overrides=_size_in_a_cheap_sweep(number),
            needs=("grown",),
            group="sweep",
        )
        for number, name in enumerate(CHEAP_SWEEP)
    ),
    Arm(
        name="earlier_recipe",
        title="series, isolated, cosine",
        overrides=_growing(
            "kasmina.incubation=straight_through",
            "schedule=cosine",
            "tamiyo.policy.blueprints=[conv_residual,mlp_residual]",
        ),
        group="ablation",
    ),
    Arm(
        name="straight_through",
        title="isolated: straight-through",
        overrides=_growing("kasmina.incubation=straight_through"),
        group="ablation",
    ),
    Arm(
        name="shadow",
        title="isolated: shadow",
        overrides=_growing("kasmina.incubation=shadow"),
        group="ablation",
    ),
    Arm(
        name="series",
        title="series branches only",
        overrides=_growing("tamiyo.policy.blueprints=[conv_residual,mlp_residual]"),
        group="ablation",
    ),
    Arm(
        name="cosine",
        title="cosine for all",
        overrides=_growing("schedule=cosine"),
        group="ablation",
    ),
    Arm(
        name="no_governor",
        title="no governor",
        overrides=_growing("governor=none"),
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
