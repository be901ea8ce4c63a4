"""One signal at one boundary."""

import math
from typing import NamedTuple


class Reading(NamedTuple):
    """How high a signal is, and by what.

    Attributes:
        score: 0 to 1.
        what: it is told from, in words with the figures.
    """

    score: float
    what: str


def highest(*readings: Reading | None) -> Reading | None:
    """The worst of what was measured; None where nothing was."""
    return max((each for each in readings if each is not None), default=None)


def within(score: float) -> float:
    """``score`` within 0 and 1; NaN, which nothing finite leads to but overflow, is 1."""
    return 1.0 if math.isnan(score) else min(1.0, max(0.0, score))


def number(value: float) -> float:
    """``value`` as a float, infinite where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def quotient(value: float, by: float) -> float:
    """``value / by``; where ``by`` is not positive, 0 of nothing and infinite of anything."""
    above, below = number(value), number(by)
    if below > 0:
        return above / below
    return math.inf if above > 0 else 0.0
