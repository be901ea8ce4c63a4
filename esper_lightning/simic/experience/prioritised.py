"""Prioritised sampling: what is expected to teach more is drawn more often, and counts less.

Proportional prioritisation of Schaul et al. 2016 (arXiv:1511.05952), sections 3.3 and 3.4.
"""

import numpy as np
import numpy.typing as npt

from esper_lightning.leyline import InvalidArgument

Array = npt.NDArray[np.float64]

EXPONENT, CORRECTION = 0.6, 0.4
"""Alpha and, to begin with, beta of Schaul et al. (table 3, proportional variant)."""

LEAST = 1e-3
"""Added to each priority, so that nothing is never drawn again."""


def probabilities(priorities: Array, exponent: float) -> Array:
    """``(N,)``: with which each is drawn, ``p^exponent / sum(p^exponent)`` (equation 1).

    Args:
        priorities: ``(N,)``, positive.
        exponent: alpha; with 0 all are drawn alike.
    """
    scaled = np.power(priorities / priorities.max(), exponent)
    found: Array = scaled / scaled.sum()
    return found


def draw(odds: Array, num: int, *, seed: int) -> list[int]:
    """``num`` places, with repetition, one from each of ``num`` equal parts of the distribution.

    So that a draw has of everything (appendix B.2.1).

    Args:
        odds: ``(N,)``, probabilities.
        num: how many.
        seed: the same one draws the same.
    """
    points = (np.arange(num) + np.random.default_rng(seed).random(num)) / num
    ends = np.cumsum(odds)
    # Rounding may leave the last end below 1.
    found = np.searchsorted(ends / ends[-1], points, side="right")
    return [int(each) for each in np.minimum(found, len(odds) - 1)]


def weights(odds: Array, drawn: list[int], *, correction: float) -> list[float]:
    """How much each that was drawn counts: ``(N P)^-correction``, the most that is possible 1.

    Args:
        odds: ``(N,)``, probabilities.
        drawn: places.
        correction: beta; with 1 what was drawn is weighed as if all were drawn alike.
    """
    counts = np.power(odds[drawn] / odds.min(), -correction)
    return [float(each) for each in counts]


def check_exponent(name: str, value: float) -> None:
    """Refuse an exponent outside of 0 to 1.

    Raises:
        InvalidArgument: it is.
    """
    if not 0 <= value <= 1:
        raise InvalidArgument(f"{name} must be 0 to 1, got {value}; 0 is no prioritisation at all")
