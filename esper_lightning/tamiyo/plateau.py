"""Whether a validation curve still moves, from a few noisy points of it."""

import math
import statistics
from collections.abc import Sequence
from itertools import combinations

from esper_lightning.leyline import InvalidArgument

Curve = Sequence[tuple[int, float]]
"""``(epoch, value)`` of every epoch that has a finite value, epochs ascending."""

MIN_POINTS = 3
"""Fewer points say nothing about a slope under noise."""


def improvement(curve: Curve, *, mode: str, window: int) -> float | None:
    """Relative improvement per epoch over the last ``window`` points; negative when it gets worse.

    The slope is Theil and Sen's: the median over all pairs of points, which no single outlier moves
    (Sen 1968). It is divided by the size of the values themselves, so that a metric in other units
    gives the same number: by the median of their magnitudes, or by their spread where that is
    larger (values around 0). For a loss 0.01 thus means "falls by 1 % an epoch"; for a metric that
    is maximised, "rises by 1 % of its level an epoch".

    Args:
        curve: the objective's history.
        mode: ``min`` or ``max``.
        window: number of points, at least 3. An epoch without a value is no point.

    Returns:
        The improvement, or None when there are fewer than 3 points.

    Raises:
        InvalidArgument: of ``mode``.

    >>> round(improvement([(0, 1.0), (1, 0.9), (2, 0.8)], mode="min", window=4), 3)
    0.111
    """
    check_mode(mode)
    points = curve[-window:]
    if len(points) < MIN_POINTS:
        return None
    slope = statistics.median(
        (y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2)
    )
    scale = _scale([value for _, value in points])
    if scale == 0:
        return 0.0
    relative = (slope if mode == "max" else 0.0 - slope) / scale
    return relative if math.isfinite(relative) else None


def worsening(curve: Curve, *, mode: str, since: int) -> float | None:
    """How much worse the curve is than it was at the end of epoch ``since``.

    Relative, scaled as in :func:`improvement`; the reference is the median of the last 3 points up
    to and including ``since``. Of the last two points after it the better one counts: a single bad
    epoch is noise, and right after a planting it is common.

    Returns:
        The worsening (negative when it got better), or None when there is no point up to ``since``
        or fewer than two after it.

    Raises:
        InvalidArgument: of ``mode``.

    >>> worsening([(0, 2.0), (1, 2.0), (2, 9.0), (3, 3.0)], mode="min", since=1)
    0.5
    """
    check_mode(mode)
    before = [value for epoch, value in curve if epoch <= since][-MIN_POINTS:]
    after = [value for epoch, value in curve if epoch > since][-2:]
    if not before or len(after) < 2:
        return None
    reference = statistics.median(before)
    scale = _scale(before)
    change = (min(after) if mode == "min" else max(after)) - reference
    if scale == 0:
        return 0.0 if change == 0 else math.copysign(math.inf, change if mode == "min" else -change)
    return (change if mode == "min" else -change) / scale


def check_mode(mode: str) -> None:
    """Refuse what is neither ``min`` nor ``max``.

    Raises:
        InvalidArgument: of ``mode``.
    """
    if mode not in ("min", "max"):
        raise InvalidArgument(f"the objective's mode must be 'min' or 'max', got {mode!r}")


def _scale(values: Sequence[float]) -> float:
    """The size of some values: their median magnitude or their spread, whichever is larger."""
    return max(statistics.median(abs(value) for value in values), max(values) - min(values))
