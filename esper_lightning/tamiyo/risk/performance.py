"""The performance signal: is the objective worse than it was, clearly and by much?"""

import math
import statistics

import msgspec

from esper_lightning.leyline import SystemState
from esper_lightning.tamiyo.risk.reading import Reading, number, quotient, within
from esper_lightning.tamiyo.risk.thresholds import TO_DEVIATIONS

WINDOW = 12
"""Values that are remembered."""

RECENT = 8
"""Boundaries within which the best counts. A run that overfits worsens slowly; that is its own
business, and no adaptation's."""

ENOUGH = 6
"""Values before the first that can be judged: fewer say nothing about noise. Of 219 healthy runs
five swung by up to four times their loss in their fourth or fifth epoch, and came back."""

LEVEL = 3
"""Values whose median is a level."""

NOISE = 3.0
"""Standard deviations of the objective's noise that a worsening is counted less by."""

SERIOUS = 0.5
"""A worsening of so much is one of the boundaries that a rollback undoes, and no value that later
ones are compared with."""

PATIENCE = 16
"""After so many serious ones in a row the run is what it is now, and is compared with that."""


class Performance(msgspec.Struct, forbid_unknown_fields=True):
    """The objective so far, turned so that lower is better.

    Attributes:
        of: name and mode of the objective; another one begins anew.
        first: the run's first value.
        values: the last ones that were finite and not seriously worse.
        worsening: at the last boundary.
        bad: boundaries in a row, until now, with a serious one.
    """

    of: str = ""
    first: float | None = None
    values: list[float] = []
    worsening: float = 0.0
    bad: int = 0

    def observe(self, state: SystemState) -> Reading | None:
        """How much worse it got; None where it is missing or there is too little to compare with.

        A worsening is relative to two things: to what was gained since the run began, and to the
        objective's own size. It is the geometric mean of both: a loss of 0.05 that doubles has lost
        little of the way down from 2.3, and one of 2.0 that rises to 2.3 is hardly worse.
        The score is that of a worsening which lasts: the mean of this boundary's and the last one's
        where this one's is higher. An evaluation that swings once, as right after a planting, comes
        back by itself. A value that is not finite scores 1 at once.
        """
        objective = state.objective
        if objective.value is None or objective.mode not in ("min", "max"):
            return None
        of = f"{objective.mode} {objective.name}"
        if of != self.of:
            self.of, self.first, self.values = of, None, []
            self.worsening, self.bad = 0.0, 0
        value = number(objective.value)
        if not math.isfinite(value):
            self._note(1.0)
            return Reading(1.0, f"{objective.name} is {value}")
        sign = 1 if objective.mode == "min" else -1
        value *= sign
        reading = self._judge(value, objective.name, sign=sign)
        self.first = value if self.first is None else self.first
        if reading is None:
            self.values = [*self.values, value]
            return None
        before = self.worsening
        self._note(reading.score)
        if self.bad >= PATIENCE:
            self.values, self.bad = [value], 0
        elif not self.bad:
            self.values = [*self.values, value][-WINDOW:]
        return reading._replace(score=min(reading.score, (reading.score + before) / 2))

    def _note(self, worsening: float) -> None:
        self.worsening = worsening
        self.bad = self.bad + 1 if worsening >= SERIOUS else 0

    def _judge(self, value: float, name: str, *, sign: int) -> Reading | None:
        if len(self.values) < ENOUGH or self.first is None:
            return None
        best = self._best()
        worse = value - best - NOISE * _noise(self.values)
        if not worse > 0:
            return Reading(0.0, f"{name} is {sign * value:.4g}, within what is usual")
        lost = min(1.0, quotient(worse, self.first - best)) if self.first > best else 1.0
        relative = min(1.0, quotient(worse, abs(best)))
        return Reading(
            within(math.sqrt(lost * relative)),
            f"{name} went from {sign * best:.4g} to {sign * value:.4g}",
        )

    def _best(self) -> float:
        """The best level of the recent values, each level a median of three."""
        recent = self.values[-RECENT:]
        return min(
            statistics.median(recent[start : start + LEVEL])
            for start in range(len(recent) - LEVEL + 1)
        )


def _noise(values: list[float]) -> float:
    """The usual distance of a value from the curve: from the middle of those on both sides of it.

    A third of such a distance's variance is that of the two beside it. A curve that bends is not
    noisy: the usual distance is taken off.
    """
    apart = [
        value - (before + after) / 2
        for before, value, after in zip(values, values[1:], values[2:], strict=False)
    ]
    bend = statistics.median(apart)
    noise = TO_DEVIATIONS * statistics.median(abs(each - bend) for each in apart) / math.sqrt(1.5)
    return noise if math.isfinite(noise) else 0.0
