"""Intervals for figures that are measured on a machine that does other things too."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

RESAMPLES = 4000


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A value and the 95 % interval of what it would be if it were measured again.

    >>> str(Interval(value=1.0034, low=0.998, high=1.009))
    '1.003 [0.998, 1.009]'
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values: Sequence[float],
    *,
    statistic: Callable[..., np.ndarray] = np.median,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap of a statistic (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: independent measurements, at least 2.
        statistic: of an array along ``axis``; the default is little moved by a measurement during
            which the machine did something else.
        resamples: drawn with replacement.
        seed: of the drawing.

    Raises:
        ValueError: fewer than 2 values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 measurements, got {len(values)}")
    measured = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(measured), size=(resamples, len(measured)))
    low, high = np.percentile(statistic(measured[drawn], axis=1), [2.5, 97.5])
    return Interval(value=float(statistic(measured, axis=0)), low=float(low), high=float(high))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Pair by pair, for measurements that were taken side by side.

    Raises:
        ValueError: they are not pairs.
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} and {len(denominators)} measurements make no pairs")
    return [a / b for a, b in zip(numerators, denominators, strict=True)]
