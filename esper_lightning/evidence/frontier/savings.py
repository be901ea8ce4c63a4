"""What growing could save beside the best static network, and what it did, in Markdown."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import log2
from statistics import mean

from esper_lightning.evidence.frontier.curves import flops_until, head_start, smoothed_losses
from esper_lightning.evidence.frontier.outcomes import (
    REFERENCE,
    TITLES,
    Outcome,
    Outcomes,
    best_of_the_frontier,
    common_seeds,
    frontier_of,
    pairs,
)
from esper_lightning.evidence.frontier.statistics import paired_difference
from esper_lightning.evidence.intervals import Interval
from esper_lightning.evidence.report import table
from esper_lightning.evidence.scaling_law import growing_share

MOMENTS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Shares of the FLOPs of the best static network: the losses it has there are asked of all."""

STEADY = 0.65
"""Share of a static run's FLOPs until which the rate has not begun to come down, by default."""

LENGTHS = ("host", "retrained", "widened")
"""Networks that are trained as long as growth, and with ``_equal_flops`` at its cost, too."""

LEAST_DOUBLINGS = 0.25
"""Of FLOPs between two lengths of training; less makes noise large."""

LAWS = ((0.34, 0.28), (0.077, 0.76))
"""Exponents of Hoffmann et al. 2022 and of Kaplan et al. 2020: least and most to be saved."""


def savings(by_task: Mapping[str, Outcomes]) -> str:
    """Head starts, FLOPs until losses, what a share of the FLOPs is worth; empty without rivals."""
    parts = [_head_starts(by_task), *_passes(by_task), _worth(by_task)]
    return "\n\n".join(part for part in parts if part)


def _head_starts(by_task: Mapping[str, Outcomes]) -> str:
    """How much sooner the rest of the frontier is where its best network passes."""
    lines = []
    for task, found in by_task.items():
        best = best_of_the_frontier(found)
        for name in frontier_of(found):
            told = head_start(found[best], found[name]) if best else None
            if best and told:
                lines.append(
                    [
                        task,
                        TITLES[best],
                        TITLES[name],
                        str(told.accuracy),
                        f"{told.flops / 1e9:,.2f}",
                        f"{told.share:.1%}",
                    ]
                )
    header = ["task", "best static network", "sooner", "at validation accuracy %", "by GFLOP"]
    return table([*header, "of all"], lines) if lines else ""


def _passes(by_task: Mapping[str, Outcomes]) -> Iterator[str]:
    """GFLOP until losses on the way of the best static network, where all seeds come to them."""
    for task, found in by_task.items():
        best = best_of_the_frontier(found)
        told_by = [s for s in common_seeds(found) if s in found.get(REFERENCE, {})] if best else []
        known = [found[best][seed] for seed in told_by] if best else []
        losses = list(_losses_on_the_way(known))
        if losses:
            spent = {
                name: _flops_until([found[name][seed] for seed in told_by], losses)
                for name in (REFERENCE, *frontier_of(found))
            }
            end = STEADY * mean(outcome.flops for outcome in known)
            steady = [
                [flops if flops is not None and flops <= end else None for flops in spent[name]]
                for name in frontier_of(found)
            ]
            lines = [
                ["the smallest steps of the frontier", *_gflop(smallest_steps(steady))],
                *([TITLES[name], *_gflop(told)] for name, told in spent.items()),
            ]
            header = [
                f"{task}: GFLOP until a validation loss of",
                *(f"{loss:g}" for loss in losses),
            ]
            yield table(header, lines)


def smallest_steps(spent: Sequence[Sequence[float | None]]) -> list[float | None]:
    """What it costs to go from each loss to the next with the network that does it for least.

    An estimate of what growing through these sizes would cost, if a loss is all that a network has
    learned: if one that has grown learns as fast as one that was as large from the beginning and
    has come to the same loss. No bound: between two of these losses a change would save more, other
    sizes may, too, and the least of noisy means is rather too small.

    Args:
        spent: FLOPs of each network until each loss, None where it does not come to it.

    Returns:
        FLOPs until each loss; None from the first on that no network comes to.
    """
    told: list[float | None] = []
    total: float | None = 0.0
    ways = [[0.0, *each] for each in spent]
    for number in range(len(spent[0])):
        steps = [
            until - since
            for way in ways
            if (since := way[number]) is not None and (until := way[number + 1]) is not None
        ]
        total = total + min(steps) if total is not None and steps else None
        told.append(total)
    return told


def _worth(by_task: Mapping[str, Outcomes]) -> str:
    """Points for twice the FLOPs, and with them what growing can save at most."""
    shares = [growing_share(alpha, beta) for alpha, beta in LAWS]
    lines = []
    for task, found in by_task.items():
        for name in LENGTHS:
            told = _of_twice(found.get(name, {}), found.get(f"{name}_equal_flops", {}))
            if told is not None:
                ratio, points = told
                lines.append(
                    [
                        task,
                        TITLES[name],
                        f"{ratio:.2f}",
                        f"{points.value:+.2f} [{points.low:+.2f}, {points.high:+.2f}]",
                        *(f"{-log2(share) * points.value:+.2f}" for share in shares),
                    ]
                )
    header = ["task", "network", "FLOPs, equal over as long", "points for twice the FLOPs"]
    saved = [f"for {1 - share:.0%} of them" for share in shares]
    return table([*header, *saved], lines) if lines else ""


def _of_twice(
    long: Mapping[int, Outcome], other: Mapping[int, Outcome]
) -> tuple[float, Interval] | None:
    """FLOPs of the other over those of a network as long, and points for twice as many.

    None where one of them was not run or counted, or both cost nearly the same.
    """
    seeds = [seed for seed in pairs(long, other) if long[seed].flops and other[seed].flops]
    doublings = mean(log2(other[s].flops / long[s].flops) for s in seeds) if seeds else 0.0
    if abs(doublings) < LEAST_DOUBLINGS:
        return None
    gap = paired_difference(
        [other[seed].test for seed in seeds], [long[seed].test for seed in seeds]
    )
    low, high = sorted((gap.low / doublings, gap.high / doublings))
    return 2**doublings, Interval(value=gap.value / doublings, low=low, high=high)


def _flops_until(seeds: Collection[Outcome], losses: Sequence[float]) -> list[float | None]:
    """Means over seeds; None where one of them never comes to the loss."""
    told: list[float | None] = []
    for loss in losses:
        spent = [flops_until(outcome, loss) for outcome in seeds]
        known = [each for each in spent if each is not None]
        told.append(mean(known) if known and len(known) == len(spent) else None)
    return told


def _losses_on_the_way(seeds: Collection[Outcome]) -> Iterator[float]:
    """Means over seeds, where all have one by then, each below the one before."""
    lowest = float("inf")
    for moment in MOMENTS:
        before = [
            [loss for flops, loss in smoothed_losses(each) if flops <= moment * each.flops]
            for each in seeds
        ]
        if all(before) and before:
            loss = round(mean(losses[-1] for losses in before), 2)
            if loss < lowest:
                lowest = loss
                yield loss


def _gflop(told: Sequence[float | None]) -> list[str]:
    return ["" if flops is None else f"{flops / 1e9:,.2f}" for flops in told]
