"""Where a learning curve was heading: the counterfactual of gate G4."""

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median

import numpy as np

WINDOW = 6
"""Values from which a trend is told."""

ANCHOR = 3
"""Last values whose median a forecast may not be worse than."""

_MOST = 700.0  # a larger exponent overflows


def forecast(
    history: Sequence[float | None], horizon: int, *, quantile: float = 0.5
) -> list[float] | None:
    """Continue a learning curve by a power law of the epoch.

    Fits ``y = c t^s`` to the last ``WINDOW`` values that are there, ``t`` being the 1-based epoch:
    learning curves are close to power laws (Hestness et al. 2017, arXiv:1712.00409). The exponent
    is the median of all pairwise slopes in the logarithms (Theil-Sen), the factor the median of
    what remains, so that one bad epoch moves neither. A curve that is not all positive is continued
    by ``y = c + s log t``.

    Args:
        history: the curve by epoch, oldest first; None where it is missing.
        horizon: how many epochs to forecast.
        quantile: of the pairwise slopes that is taken for the exponent; 0.5 is Theil-Sen's median,
            0.9 a curve that falls less, or rises more, than nine tenths of them tell.

    Returns:
        ``horizon`` values, or None when nothing of the curve is there.

    >>> [round(value, 6) for value in forecast([1.0, 0.5, None, 0.25], 2)]
    [0.2, 0.166667]
    """
    points = [(math.log(t), y) for t, y in enumerate(history, start=1) if y is not None][-WINDOW:]
    if not points:
        return None
    power = all(y > 0 for _, y in points)
    curve = [(t, math.log(y)) for t, y in points] if power else points
    slopes = [(b - a) / (u - t) for (t, a), (u, b) in combinations(curve, 2)]
    slope = float(np.quantile(slopes, quantile)) if slopes else 0.0
    level = median(y - slope * t for t, y in curve)
    ahead = [level + slope * math.log(len(history) + k) for k in range(1, horizon + 1)]
    return [math.exp(min(value, _MOST)) for value in ahead] if power else ahead


def relative_gain(
    history: Sequence[float | None],
    observed: Sequence[float | None],
    *,
    mode: str,
    doubt: float = 0.0,
) -> float | None:
    """How much better a curve went than it was heading, relative to where it was heading.

    The forecast is never worse than the median of the last ``ANCHOR`` values: a curve that was
    getting worse earns nothing by merely stopping. Of a score to maximise that lies between 0 and
    1, such as accuracy, it is what is missing to 1 that is forecast and compared.

    Args:
        history: the objective until the change, oldest first; None where it is missing.
        observed: the objective in the epochs that followed; the mean is taken over those present.
        mode: ``min`` or ``max``.
        doubt: how far from the median the exponent is taken, in quantiles and towards a curve that
            improves less: 0.4 takes the last tenth.

    Returns:
        ``(forecast - observed) / |forecast|`` for ``min``, the opposite for ``max``; None without
        evidence on either side or with a forecast of 0.

    >>> relative_gain([1.0, 1.0, 1.0], [None, 0.75], mode="min")
    0.25
    >>> relative_gain([0.5, 0.5, 0.5], [None, 0.75], mode="max")
    0.5
    """
    values = [value for value in (*history, *observed) if value is not None]
    if mode == "max" and all(0 <= value < 1 for value in values):
        history = [None if value is None else 1 - value for value in history]
        observed = [None if value is None else 1 - value for value in observed]
        mode = "min"
    ahead = forecast(history, len(observed), quantile=0.5 + doubt if mode == "min" else 0.5 - doubt)
    seen = [number for number, value in enumerate(observed) if value is not None]
    if ahead is None or not seen:
        return None
    better = min if mode == "min" else max
    anchor = median([value for value in history if value is not None][-ANCHOR:])
    expected = sum(better(ahead[number], anchor) for number in seen) / len(seen)
    found = sum(value for value in observed if value is not None) / len(seen)
    if expected == 0:
        return None
    gain = (expected - found) / abs(expected)
    return gain if mode == "min" else -gain
