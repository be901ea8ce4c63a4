"""Where a learning curve was heading: the counterfactual of gate G4."""

from collections.abc import Sequence


def damped_trend(
    history: Sequence[float],
    horizon: int,
    *,
    level_gain: float = 0.6,
    trend_gain: float = 0.3,
    damping: float = 0.85,
) -> list[float]:
    """Forecast a curve by Holt's method with a damped trend (Gardner & McKenzie 1985).

    Level ``l`` and trend ``b`` follow ``l' = a y + (1 - a)(l + p b)`` and
    ``b' = t (l' - l) + (1 - t) p b``; the forecast ``k`` steps ahead is ``l + (p + ... + p^k) b``.

    Args:
        history: the curve so far, oldest first, at least one value.
        horizon: how many steps to forecast.
        level_gain: ``a``, in (0, 1].
        trend_gain: ``t``, in [0, 1].
        damping: ``p``, in (0, 1]; below 1 the curve flattens, as learning curves do.

    >>> [round(value, 3) for value in damped_trend([4.0, 3.0, 2.5, 2.25], 2)]
    [1.629, 1.248]
    """
    level = history[0]
    trend = history[1] - history[0] if len(history) > 1 else 0.0
    for value in history[1:]:
        previous = level
        level = level_gain * value + (1 - level_gain) * (level + damping * trend)
        trend = trend_gain * (level - previous) + (1 - trend_gain) * damping * trend
    forecast, step = [], 0.0
    for k in range(1, horizon + 1):
        step += damping**k
        forecast.append(level + step * trend)
    return forecast


def relative_gain(
    history: Sequence[float | None], observed: Sequence[float | None], *, mode: str
) -> float | None:
    """How much better a curve went than it was heading, relative to the forecast.

    The forecast is never worse than the last value of ``history``: a curve that was getting worse
    earns nothing by merely stopping.

    Args:
        history: the objective until the change, oldest first; None where it is missing.
        observed: the objective in the epochs that followed; the mean is taken over those present.
        mode: ``min`` or ``max``.

    Returns:
        ``(forecast - observed) / |forecast|`` for ``min``, the opposite for ``max``; None without
        evidence on either side or with a forecast of 0.

    >>> relative_gain([1.0, 1.0, 1.0], [None, 0.75], mode="min")
    0.25
    """
    past = [value for value in history if value is not None]
    if not past or all(value is None for value in observed):
        return None
    sign = 1.0 if mode == "min" else -1.0
    signed = [sign * value for value in past]
    forecast = [min(value, signed[-1]) for value in damped_trend(signed, len(observed))]
    pairs = [(f, sign * o) for f, o in zip(forecast, observed, strict=True) if o is not None]
    expected = sum(f for f, _ in pairs) / len(pairs)
    found = sum(o for _, o in pairs) / len(pairs)
    if expected == 0:
        return None
    return (expected - found) / abs(expected)
