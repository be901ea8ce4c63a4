"""What a run had reached when: validation on the way, smoothed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, isinf
from statistics import mean, median

from esper_lightning.evidence.frontier.outcomes import Outcome, pairs

SMOOTHED = 3
"""Epochs whose median is what a curve has reached."""


def share_until(outcome: Outcome, accuracy: float) -> float | None:
    """Share of the FLOPs of a run after which it had reached ``accuracy`` points; None if never."""
    for flops, reached in _smoothed_accuracies(outcome):
        if reached >= accuracy:
            return flops / outcome.flops
    return None


def reached_with(outcome: Outcome, flops: float) -> float | None:
    """Points that a run had reached for at most so many FLOPs; None before its first epoch."""
    before = [reached for spent, reached in _smoothed_accuracies(outcome) if spent <= flops]
    return before[-1] if before else None


def flops_until(outcome: Outcome, loss: float) -> float | None:
    """FLOPs after which a run had come down to ``loss``, between two epochs in proportion.

    None if it never did; the end of the first epoch where it had by then.
    """
    since, above = 0.0, inf
    for flops, reached in smoothed_losses(outcome):
        if reached <= loss:
            part = 1.0 if isinf(above) else (above - loss) / (above - reached)
            return since + (flops - since) * part
        since, above = flops, reached
    return None


def smoothed_losses(outcome: Outcome) -> Iterator[tuple[float, float]]:
    """FLOPs and validation loss, epoch by epoch, where there is one that is finite."""
    known = [
        (point.flops, point.objective)
        for point in outcome.curve
        if point.objective is not None and isfinite(point.objective)
    ]
    return _smoothed([flops for flops, _ in known], [loss for _, loss in known])


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadStart:
    """How much sooner another network reaches what a network passes on its way.

    Attributes:
        accuracy: in whole points, at which that is most.
        flops: that the other one saves until there, mean over seeds.
        share: of all that the network is trained for, likewise.
    """

    accuracy: int
    flops: float
    share: float


def head_start(network: Mapping[int, Outcome], other: Mapping[int, Outcome]) -> HeadStart | None:
    """The largest head start of another network; None if it has none.

    If growing is a change from one network's curve to another's at the same accuracy, it is what
    growing can save in the beginning: before it the other one learns for less, after it no longer.
    """
    seeds = pairs(network, other)
    ahead = [_ahead(network, other, seeds, accuracy) for accuracy in range(1, 101)]
    found = [each for each in ahead if each is not None and each.flops > 0]
    return max(found, key=lambda each: (each.share, each.accuracy), default=None)


def _ahead(
    network: Mapping[int, Outcome],
    other: Mapping[int, Outcome],
    seeds: Sequence[int],
    accuracy: int,
) -> HeadStart | None:
    saved: list[float] = []
    for seed in seeds:
        late, soon = (share_until(each[seed], accuracy) for each in (network, other))
        if late is None or soon is None:
            return None
        saved.append(late * network[seed].flops - soon * other[seed].flops)
    if not saved:
        return None
    share = mean(each / network[seed].flops for each, seed in zip(saved, seeds, strict=True))
    return HeadStart(accuracy=accuracy, flops=mean(saved), share=share)


def _smoothed_accuracies(outcome: Outcome) -> Iterator[tuple[float, float]]:
    """FLOPs and points, epoch by epoch."""
    points = outcome.curve
    return _smoothed([point.flops for point in points], [100 * point.val for point in points])


def _smoothed(flops: Sequence[float], values: Sequence[float]) -> Iterator[tuple[float, float]]:
    for number, spent in enumerate(flops):
        yield spent, median(values[max(0, number - SMOOTHED + 1) : number + 1])
