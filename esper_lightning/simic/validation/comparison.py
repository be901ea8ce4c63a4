"""Who decides better, and how sure that is: differences over the same tasks and seeds.

Runs of one task are no independent samples of what a policy does elsewhere, so tasks are what is
drawn anew: intervals are those of the mean over tasks (a cluster bootstrap, Davison & Hinkley 1997,
section 3.8; BCa, Efron 1987). Among few tasks these intervals are too short: over eight with
heavy tails, 8 % of those at 95 % lie wholly above a true 0 instead of 2.5 %. Hence the test by
flipping signs beside them, which is exact for any number of tasks where differences are symmetric
about 0 (Fisher 1935, chapter 3). Computed by ``scipy.stats``.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole

Array = npt.NDArray[np.float64]

MIN_TASKS = 2
"""Below it nothing can be said of other tasks."""


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs of one task and seed reached, each beside the same twin.

    Attributes:
        task: name of it.
        seed: of the runs.
        utilities: of the run in which each decided, by name; None where there is none, because the
            run failed.
    """

    task: str
    seed: int
    utilities: dict[str, float | None]


class Interval(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mean over tasks, and where it would be for other tasks of their kind.

    Attributes:
        value: of the tasks that were run.
        low: lower end; None where no interval can be told.
        high: upper end; likewise.

    >>> str(Interval(value=0.0512, low=0.01, high=0.09))
    '+0.051 [+0.010, +0.090]'
    """

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:+.3f} [unknown]"
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class Resampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How intervals are computed.

    Attributes:
        confidence: of intervals, above 0 and below 1.
        num: times that tasks are drawn anew.
        seed: of the drawing.

    Raises:
        InvalidArgument: a number outside of what is allowed.
    """

    confidence: float = 0.95
    num: int = 9999
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("confidence", self.confidence)
        if not 0 < self.confidence < 1:
            raise InvalidArgument(f"confidence must be between 0 and 1, got {self.confidence}")
        check_whole("num", self.num, least=99)
        check_whole("seed", self.seed, least=0)

    @property
    def tail(self) -> float:
        """What an interval leaves out at either end."""
        return (1 - self.confidence) / 2


class Difference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much more one reached than another.

    Attributes:
        one: who.
        other: than whom.
        mean: of the utility of ``one`` less that of ``other``, each task counting the same.
        chance: that it would be as large if the sign of a task's difference were a coin's.
        improvement: share of pairs in which ``one`` reached more, half of those in which both
            reached the same; Agarwal et al. 2021 (arXiv:2108.13264), section 4.3, on pairs.
        pairs: of runs.
        tasks: how many.
    """

    one: str
    other: str
    mean: Interval
    chance: float
    improvement: Interval
    pairs: int
    tasks: int

    def __str__(self) -> str:
        return (
            f"{self.one} less {self.other}: {self.mean}, p = {self.chance:.2g}, better in "
            f"{self.improvement.value:.0%} of {self.pairs} pairs of {self.tasks} tasks"
        )


def difference(
    measured: Sequence[Measured], one: str, other: str, *, resampling: Resampling | None = None
) -> Difference:
    """Compare two over all pairs.

    Args:
        measured: both have a finite utility in each, and no task and seed stands twice.
        one: who.
        other: with whom.
        resampling: how intervals are computed.

    Raises:
        InvalidArgument: there are fewer than two tasks, or a utility is missing or not finite.
    """
    how = resampling or Resampling()
    by_task: dict[str, list[float]] = {}
    for each in measured:
        gap = _utility(each, one) - _utility(each, other)
        by_task.setdefault(each.task, []).append(gap)
    if len(by_task) < MIN_TASKS:
        raise InvalidArgument(
            f"a difference is told over at least {MIN_TASKS} tasks, got {len(by_task)}: run more"
        )
    gaps = [np.asarray(each) for each in by_task.values()]
    means = np.asarray([each.mean() for each in gaps])
    wins = np.asarray([(np.sign(each).mean() + 1) / 2 for each in gaps])
    return Difference(
        one=one,
        other=other,
        mean=_interval(means, how),
        chance=chance(means, resampling=how),
        improvement=_interval(wins, how),
        pairs=len(measured),
        tasks=len(by_task),
    )


def chance(values: Array, *, resampling: Resampling) -> float:
    """That the mean is as large as this or larger when the sign of each value is drawn anew.

    All signs are tried where these are at most as many as times to draw, otherwise as many are
    drawn.
    """
    found = _quietly(
        stats.permutation_test,
        (values,),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        n_resamples=resampling.num,
        vectorized=True,
        random_state=np.random.default_rng(resampling.seed),
    )
    return float(found.pvalue)


def _utility(measured: Measured, who: str) -> float:
    found = measured.utilities.get(who)
    if found is None or not math.isfinite(found):
        raise InvalidArgument(
            f"the utility of {who} on {measured.task} with seed {measured.seed} is {found}; "
            "compare where both have one"
        )
    return found


def _interval(values: Array, how: Resampling) -> Interval:
    value = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(value=value, low=value, high=value)
    found = _quietly(
        stats.bootstrap,
        (values,),
        np.mean,
        method="BCa",
        n_resamples=how.num,
        confidence_level=how.confidence,
        vectorized=True,
        random_state=np.random.default_rng(how.seed),
    ).confidence_interval
    low, high = float(found.low), float(found.high)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Interval(value=value, low=None, high=None)
    return Interval(value=value, low=low, high=high)


def _quietly(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What cannot be told is told by what comes back, which is not finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)
