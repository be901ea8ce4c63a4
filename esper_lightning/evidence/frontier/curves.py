"""What a run had reached when: validation accuracy on the way, smoothed."""

from collections.abc import Iterator
from statistics import median

from esper_lightning.evidence.frontier.outcomes import Outcome

SMOOTHED = 3
"""Epochs whose median is the accuracy that a curve has reached."""


def share_until(outcome: Outcome, accuracy: float) -> float | None:
    """Share of the FLOPs of a run after which it had reached ``accuracy`` points; None if never."""
    for flops, reached in _smoothed(outcome):
        if reached >= accuracy:
            return flops / outcome.flops
    return None


def reached_with(outcome: Outcome, flops: float) -> float | None:
    """Points that a run had reached for at most so many FLOPs; None before its first epoch."""
    before = [reached for spent, reached in _smoothed(outcome) if spent <= flops]
    return before[-1] if before else None


def _smoothed(outcome: Outcome) -> Iterator[tuple[float, float]]:
    """FLOPs and points, epoch by epoch."""
    values = [100 * point.val for point in outcome.curve]
    for number, point in enumerate(outcome.curve):
        yield point.flops, median(values[max(0, number - SMOOTHED + 1) : number + 1])
