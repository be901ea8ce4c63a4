"""A metric in a window against where its curve was heading, and whether that is more than noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from esper_lightning.kasmina.trend import WINDOW, forecast, relative_gain
from esper_lightning.leyline import Outcome

Values = Sequence[float | None]
"""A metric by epoch; None where it is missing."""

LEAST = 1e-3
"""A smaller relative change than this is none: rounding alone makes a smooth curve move."""

_STUDENT = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132}
"""Student's t that chance exceeds once in 20, by degrees of freedom (``WINDOW - 2`` at most).

Few values tell little about their own noise, and the factor makes up for it."""

_DOUBT = 0.4
"""How far from the median of the slopes, in quantiles, the flattest curve is: the last tenth.

A regression is told from that. Curves flatten faster than a power law as they converge, and nothing
has to be done to them for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A metric in a window, against its curve before.

    Attributes:
        found: mean of the window's values.
        expected: mean of the forecast for the same epochs.
        shift: how much better than forecast, relative to the forecast; None where that is 0.
        gain: the same by :func:`~esper_lightning.kasmina.trend.relative_gain`, of which the
            forecast is never worse than what had been reached; None where it does not tell.
        setback: how much worse than the flattest curve that the values before allow, relative to
            that; None where it is 0.
        noise: the relative difference that chance exceeds once in 20; None with fewer than three
            values before.
    """

    found: float
    expected: float
    shift: float | None
    gain: float | None
    setback: float | None
    noise: float | None

    @property
    def delta(self) -> float:
        """Found minus expected, in the metric's own unit."""
        return self.found - self.expected


def compare(before: Values, observed: Values, *, mode: str) -> Comparison | None:
    """Compare a window with where the curve was heading.

    The noise is the prediction interval of a straight line: standard deviation of what the
    forecast's line leaves of the last values, widened by how few and how far away they are, times
    Student's t. The line is Theil and Sen's instead of that of least squares, and epochs are taken
    as independent.

    Args:
        before: until the change, oldest first.
        observed: in the epochs that followed, None for those outside of the window.
        mode: ``min`` or ``max``. A score to maximise between 0 and 1 is forecast by what is missing
            to 1.

    Returns:
        None without a value on either side.

    >>> compare([1.0, 1.0, 1.0], [None, 0.75], mode="min").gain
    0.25
    """
    seen = [number for number, value in enumerate(observed) if value is not None]
    flips = mode == "max" and all(value is None or 0 <= value < 1 for value in (*before, *observed))
    if flips:
        before, observed, mode = _missing(before), _missing(observed), "min"
    doubt = _DOUBT if mode == "min" else -_DOUBT
    ahead = forecast(before, max(len(observed), 2))
    flattest = forecast(before, len(observed), quantile=0.5 + doubt)
    if ahead is None or flattest is None or not seen:
        return None
    found = fmean(value for value in observed if value is not None)
    expected = fmean(ahead[number] for number in seen)
    shift = _improvement(found, expected, mode=mode)
    setback = _improvement(found, fmean(flattest[number] for number in seen), mode=mode)
    return Comparison(
        found=1 - found if flips else found,
        expected=1 - expected if flips else expected,
        shift=shift,
        gain=relative_gain(before, observed, mode=mode),
        setback=None if setback is None else -setback,
        noise=_noise(before, ahead, seen, expected=expected),
    )


def judge(comparison: Comparison, *, rent: float | None) -> tuple[Outcome, str]:
    """The outcome by rule, and why in words.

    SUCCESS is a gain above noise and rent over where the curve was heading, or over what it had
    reached if it was getting worse. REGRESSION is worse, beyond noise, than even the flattest curve
    that the values before allow.

    Args:
        comparison: of the objective.
        rent: the least relative gain that pays; None where nothing has to.
    """
    shift, gain, setback, noise = (
        comparison.shift,
        comparison.gain,
        comparison.setback,
        comparison.noise,
    )
    told = f"{comparison.found:.4g}, it was heading for {comparison.expected:.4g}"
    if shift is None or gain is None or setback is None:
        return Outcome.NEUTRAL, f"{told}, of which nothing can be a share"
    told += f": {abs(shift):.2%} {'better' if shift >= 0 else 'worse'}"
    if shift - gain > LEAST:
        told += f", {gain:+.2%} against what it had reached"
    if noise is None:
        return Outcome.NEUTRAL, f"{told}; too few values before to tell that from noise"
    noise = max(noise, LEAST)
    told += f"; noise {noise:.2%}"
    if rent is not None:
        told += f", rent {rent:.2%}"
    if gain > noise and (rent is None or gain > rent):
        return Outcome.SUCCESS, told
    if setback > noise:
        return Outcome.REGRESSION, told
    if shift < -noise:
        told += f"; {max(setback, 0.0):.2%} worse than a curve that flattens"
    return Outcome.NEUTRAL, told


def _missing(values: Values) -> list[float | None]:
    return [None if value is None else 1 - value for value in values]


def _improvement(found: float, expected: float, *, mode: str) -> float | None:
    if not expected:
        return None
    better = expected - found if mode == "min" else found - expected
    return better / abs(expected)


def _noise(
    before: Values, ahead: Sequence[float], seen: Sequence[int], *, expected: float
) -> float | None:
    points = [(math.log(t), y) for t, y in enumerate(before, start=1) if y is not None][-WINDOW:]
    free = len(points) - 2
    if free < 1:
        return None
    is_power = all(y > 0 for _, y in points)
    if not expected or (is_power and not min(ahead) > 0):
        return None
    level, further = (math.log(y) if is_power else y for y in ahead[:2])
    start = math.log(len(before) + 1)
    slope = (further - level) / (math.log(len(before) + 2) - start)
    rests = [(math.log(y) if is_power else y) - level - slope * (x - start) for x, y in points]
    deviation = math.sqrt(sum(rest * rest for rest in rests) / free)
    centre = fmean(x for x, _ in points)
    away = fmean(math.log(len(before) + 1 + number) for number in seen) - centre
    spread = sum((x - centre) ** 2 for x, _ in points)
    error = deviation * math.sqrt(1 / len(seen) + 1 / len(points) + away * away / spread)
    return _STUDENT[free] * (error if is_power else error / abs(expected))
