"""What each arm reached and what it cost, seed by seed; a search for a size is one of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from esper_lightning.evidence.frontier.arms import ARMS, CHEAP_SWEEP, RIVALS, SWEEP
from esper_lightning.evidence.frontier.rows import Point, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Of one seed.

    Attributes:
        test, val: accuracy in points (per cent), of the final network.
        parameters: of the final network.
        flops: training FLOPs, of everything that had to be trained.
        wall_s: training time in seconds, likewise.
        curve: validation by epoch; empty for a search.
    """

    test: float
    val: float
    parameters: float
    flops: float
    wall_s: float
    curve: tuple[Point, ...] = ()


Outcomes = Mapping[str, Mapping[int, Outcome]]
"""By arm and seed."""

SEARCHES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "best_size": ("best size of a sweep, all of it counted", SWEEP),
    "best_size_equal_flops": ("best size of a sweep, equal FLOPs", CHEAP_SWEEP),
}
"""Arms that are the best of several runs: title, and which."""

REFERENCE = "grown"
"""The arm that all others are compared with."""

KNOWN = "known_size"
"""The arm of a user who knows beforehand which size is best for what growing costs."""

TITLES: Mapping[str, str] = {
    **{arm.name: arm.title for arm in ARMS.values() if arm.group != "sweep"},
    **{name: title for name, (title, _) in SEARCHES.items()},
    KNOWN: "best of the static frontier, known beforehand",
}
"""Of every arm that is reported."""

ABLATIONS = tuple(arm.name for arm in ARMS.values() if arm.group == "ablation")


def outcomes(rows: Iterable[Row], task: str) -> Outcomes:
    """Of one task."""
    found: dict[str, dict[int, Outcome]] = {}
    for row in rows:
        if row.task == task:
            found.setdefault(row.arm, {})[row.seed] = _of(row)
    for name, (_, parts) in SEARCHES.items():
        seeds = set.intersection(*(set(found.get(part, {})) for part in parts))
        if seeds:
            found[name] = {
                seed: _best([found[part][seed] for part in parts]) for seed in sorted(seeds)
            }
    best = best_of_the_frontier(found)
    if best is not None:
        found[KNOWN] = found[best]
    return {name: found[name] for name in TITLES if name in found}


def pairs(first: Mapping[int, Outcome], second: Mapping[int, Outcome]) -> list[int]:
    """The seeds that both have."""
    return sorted(first.keys() & second.keys())


def _of(row: Row) -> Outcome:
    summary = row.summary
    return Outcome(
        test=100 * summary.test["test/acc"],
        val=100 * summary.validation["val/acc"],
        parameters=float(summary.parameters),
        flops=summary.training_flops or 0.0,
        wall_s=summary.wall_s,
        curve=row.curve,
    )


def frontier_of(found: Outcomes) -> list[str]:
    """The arms of the static frontier that were run."""
    return [name for name in RIVALS if name in found]


def best_of_the_frontier(found: Outcomes) -> str | None:
    """The arm with the best mean validation accuracy, over the seeds that all of them have."""
    there = frontier_of(found)
    seeds = common_seeds(found) if len(there) > 1 else []
    if not seeds:
        return None
    return max(there, key=lambda name: mean(found[name][seed].val for seed in seeds))


def common_seeds(found: Outcomes) -> list[int]:
    """The seeds that all of the static frontier has, as far as it was run."""
    return sorted(set.intersection(*(set(found[name]) for name in frontier_of(found))))


def _best(tried: Sequence[Outcome]) -> Outcome:
    """The one with the best validation accuracy, the smallest of equals, at the cost of all."""
    best = max(tried, key=lambda outcome: (outcome.val, -outcome.parameters))
    return Outcome(
        test=best.test,
        val=best.val,
        parameters=best.parameters,
        flops=sum(outcome.flops for outcome in tried),
        wall_s=sum(outcome.wall_s for outcome in tried),
    )
