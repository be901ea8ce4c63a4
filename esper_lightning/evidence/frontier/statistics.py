"""What several seeds say together: interquartile means, paired differences, probabilities.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv:2108.13264) say why: few runs, no normal distribution, outliers. Computed by ``scipy.stats``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from esper_lightning.evidence.intervals import Interval

RESAMPLES = 9999


def interquartile_mean(values: Sequence[float]) -> Interval:
    """Mean of the middle half, with its bootstrapped 95 % interval.

    >>> interquartile_mean([1.0, 2.0, 3.0, 100.0]).value
    2.5
    """

    def middle(sample: Any, axis: int = -1) -> Any:
        return stats.trim_mean(sample, 0.25, axis=axis)

    return _bootstrap((values,), middle)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of ``first - second``, seed by seed, with the 95 % interval of Student's t.

    A bootstrapped one is too narrow for a handful of seeds: of five, it covers 84 % of the time.

    Raises:
        ValueError: they are not pairs.

    >>> paired_difference([3.0, 5.0, 4.0], [2.0, 4.0, 3.0])
    Interval(value=1.0, low=1.0, high=1.0)
    """
    gaps = _gaps(first, second)
    value = float(np.mean(gaps))
    if len(gaps) < 2:
        return Interval(value=value, low=float("-inf"), high=float("inf"))
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps))
    return Interval(value=value, low=value - half, high=value + half)


def resampled_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """The same with a bootstrapped interval: for pairs that are no seeds of one task, but tasks.

    Raises:
        ValueError: they are not pairs.
    """
    return _bootstrap((_gaps(first, second),), np.mean)


def probability_of_improvement(first: Sequence[float], second: Sequence[float]) -> Interval:
    """How probable it is that a run of the first beats a run of the second; a tie is half a win.

    The Mann-Whitney statistic over the number of pairs, with its bootstrapped 95 % interval.

    >>> probability_of_improvement([1.0, 2.0], [1.0, 0.0]).value
    0.875
    """

    def chance(a: Any, b: Any, axis: int = -1) -> Any:
        wins = stats.mannwhitneyu(a, b, axis=axis, method="asymptotic").statistic
        return wins / (np.shape(a)[axis] * np.shape(b)[axis])

    return _bootstrap((first, second), chance, resamples=999)


def ratio_of_means(first: Sequence[float], second: Sequence[float]) -> float:
    """What the first cost on average, over what the second did."""
    return float(np.mean(first) / np.mean(second))


def _gaps(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def _bootstrap(
    samples: Sequence[Sequence[float]], statistic: Any, *, resamples: int = RESAMPLES
) -> Interval:
    arrays = tuple(np.asarray(sample, dtype=np.float64) for sample in samples)
    value = float(statistic(*arrays, axis=-1))
    if min(len(sample) for sample in arrays) < 2:
        return Interval(value=value, low=float("-inf"), high=float("inf"))
    if all(np.ptp(sample) == 0 for sample in arrays):
        return Interval(value=value, low=value, high=value)
    found = stats.bootstrap(
        arrays,
        statistic,
        method="percentile",
        n_resamples=resamples,
        vectorized=True,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value=value, low=float(found.low), high=float(found.high))
