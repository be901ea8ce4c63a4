"""The goals, and whether they are met. All but the last were set before anything was measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from esper_lightning.evidence.frontier.arms import ARMS, RIVALS
from esper_lightning.evidence.frontier.curves import share_until
from esper_lightning.evidence.frontier.outcomes import (
    KNOWN,
    Outcome,
    Outcomes,
    best_of_the_frontier,
    common_seeds,
    frontier_of,
    pairs,
)
from esper_lightning.evidence.frontier.statistics import (
    interquartile_mean,
    paired_difference,
    ratio_of_means,
)
from esper_lightning.evidence.intervals import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A goal on one task: what was found, and whether that meets it. None where runs are missing.

    Attributes:
        text: the figures.
        met: on this task.
    """

    text: str
    met: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A goal.

    Attributes:
        text: in words.
        find: on one task; None where the runs for it are missing.
        tasks: on how many it must be met; None is all.
    """

    text: str
    find: Callable[[Outcomes], Finding | None]
    tasks: int | None = None


def _at_equal_flops(rival: str) -> Callable[[Outcomes], Finding | None]:
    def find(found: Outcomes) -> Finding | None:
        gap = _gap(found, "grown", rival)
        return None if gap is None else Finding(text=_points(gap), met=gap.low > 0)

    return find


def _at_equal_epochs(rival: str) -> Callable[[Outcomes], Finding | None]:
    def find(found: Outcomes) -> Finding | None:
        gap = _gap(found, "grown", rival)
        if gap is None:
            return None
        share = ratio_of_means(*_costs(found, "grown", rival, lambda o: o.flops))
        return Finding(
            text=f"{_points(gap)} at {share:.2f} of its FLOPs", met=gap.low > -0.2 and share <= 0.6
        )

    return find


def _to_the_same_accuracy(found: Outcomes) -> Finding | None:
    """Cost until the curve of validation accuracy is where the static network's ends."""
    if "grown" not in found or "widened" not in found:
        return None
    flops, wall = [], []
    for seed in pairs(found["grown"], found["widened"]):
        grown, static = found["grown"][seed], found["widened"][seed]
        share = share_until(grown, static.val)
        # A run that never gets there is charged with as much again as it did not get to.
        flops.append(2.0 if share is None else share * grown.flops / static.flops)
        wall.append(2.0 if share is None else share * grown.wall_s / static.wall_s)
    if not flops:
        return None
    cost, time = interquartile_mean(flops), interquartile_mean(wall)
    return Finding(
        text=f"FLOPs {cost.value:.2f} [{cost.low:.2f}, {cost.high:.2f}], wall {time.value:.2f}",
        met=cost.value <= 0.5 and time.value <= 0.7,
    )


def _against_the_sweep(found: Outcomes) -> Finding | None:
    gap = _gap(found, "grown", "best_size_equal_flops")
    full = _gap(found, "grown", "best_size")
    if gap is None or full is None:
        return None
    share = ratio_of_means(*_costs(found, "grown", "best_size", lambda o: o.flops))
    return Finding(
        text=f"{_points(gap)}; of a full sweep {_points(full)} at {share:.2f} of its FLOPs",
        met=gap.low > 0,
    )


def _against_the_frontier(found: Outcomes) -> Finding | None:
    """Met only where every network of the frontier was run: a few of them may miss the best."""
    gap, best = _gap(found, "grown", KNOWN), best_of_the_frontier(found)
    if gap is None or best is None:
        return None
    num = len(frontier_of(found))
    return Finding(
        text=f"{_points(gap)}, {ARMS[best].title}; {num} of {len(RIVALS)} rivals, chosen by "
        f"{len(common_seeds(found))} seeds",
        met=gap.low > 0 and num == len(RIVALS),
    )


def _gap(found: Outcomes, first: str, second: str) -> Interval | None:
    if first not in found or second not in found:
        return None
    seeds = pairs(found[first], found[second])
    if not seeds:
        return None
    return paired_difference(
        [found[first][seed].test for seed in seeds], [found[second][seed].test for seed in seeds]
    )


def _costs(
    found: Outcomes, first: str, second: str, cost: Callable[[Outcome], float]
) -> tuple[list[float], list[float]]:
    seeds = pairs(found[first], found[second])
    return [cost(found[first][s]) for s in seeds], [cost(found[second][s]) for s in seeds]


def _points(gap: Interval) -> str:
    return f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"


GOALS: Sequence[Goal] = (
    Goal(
        text="equal FLOPs, grown minus its topology from scratch: interval above 0 on 4 of 5",
        find=_at_equal_flops("retrained_equal_flops"),
        tasks=4,
    ),
    Goal(
        text="equal FLOPs, grown minus a host of the same size: interval above 0 on 4 of 5",
        find=_at_equal_flops("widened_equal_flops"),
        tasks=4,
    ),
    Goal(
        text="equal epochs, grown minus its topology from scratch: interval above -0.2 at "
        "<= 0.60 of its FLOPs on 4 of 5",
        find=_at_equal_epochs("retrained"),
        tasks=4,
    ),
    Goal(
        text="equal epochs, grown minus a host of the same size: likewise",
        find=_at_equal_epochs("widened"),
        tasks=4,
    ),
    Goal(
        text="FLOPs to the accuracy of a host of the same size <= 0.50, wall <= 0.70, on 3",
        find=_to_the_same_accuracy,
        tasks=3,
    ),
    Goal(
        text="better than the best size of a sweep that costs as much, on all",
        find=_against_the_sweep,
    ),
    Goal(
        text="equal FLOPs, grown minus the best of the static frontier: interval above 0 on 4 of 5",
        find=_against_the_frontier,
        tasks=4,
    ),
)
"""Every goal, in the order of the report."""


def judge(by_task: Mapping[str, Outcomes]) -> list[tuple[Goal, dict[str, Finding | None]]]:
    """Every goal, with what was found on each task."""
    return [(goal, {task: goal.find(found) for task, found in by_task.items()}) for goal in GOALS]
