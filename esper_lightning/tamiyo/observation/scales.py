"""Numbers on scales of their own: shares, logarithms of ratios, one-hot codes. Missing is None.

A ratio to what it belongs to has no unit, and its logarithm is the same step for each doubling.
What may have any sign or size is compressed as ``sign(x) log(1 + |x|)`` (Hafner et al. 2023,
arXiv:2301.04104, equation 2): near 0 it is ``x`` itself, and of no float does it exceed 710.
"""

import math
from collections.abc import Collection, Sequence
from enum import Enum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Features = dict[str, float | None]
"""By name; None is missing. The names of one kind of token and their order never vary."""


MAX_CODES = 4096
"""Codes that are kept: a run has some hundred."""


def finite(value: float | None) -> float | None:
    """The number as a float, None where it is missing, not finite, or too large for a float."""
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def compressed(value: float | None) -> float | None:
    """``sign(x) log(1 + |x|)``.

    >>> round(compressed(-0.01), 4), compressed(float("nan"))
    (-0.01, None)
    """
    number = finite(value)
    return None if number is None else math.copysign(math.log1p(abs(number)), number)


def count(value: float | None) -> float | None:
    """Logarithm of one more than a count of at least 0: its ratio to one, and 0 for none."""
    number = finite(value)
    return None if number is None or number < 0 else math.log1p(number)


def ratio(part: float | None, whole: float | None) -> float | None:
    """``part / whole``, compressed."""
    if part is None or whole is None:
        return None
    above, below = finite(part), finite(whole)
    if above is None or below is None or below == 0:
        return None
    return compressed(above / below)


def log_ratio(part: float | None, whole: float | None) -> float | None:
    """``log(part / whole)`` of two positive numbers."""
    if part is None or whole is None:
        return None
    above, below = finite(part), finite(whole)
    if above is None or below is None or above <= 0 or below <= 0:
        return None
    return math.log(above) - math.log(below)


def amount(name: str, part: float | None, whole: float | None) -> Features:
    """:func:`log_ratio` of what may be 0, and whether it is: that is not the same as missing."""
    number = finite(part)
    return {
        name: log_ratio(number, whole),
        f"{name}_none": flag(None if number is None else number == 0),
    }


def flag(value: bool | None) -> float | None:
    """1 for yes, 0 for no."""
    return None if value is None else float(value)


def signed(name: str, value: float | None) -> Features:
    """A number of any sign whose size matters near 0: compressed, its sign, and its log size."""
    number = finite(value)
    if number is None:
        return {name: None, f"{name}_sign": None, f"{name}_size": None}
    size = abs(number)
    return {
        name: math.copysign(math.log1p(size), number),
        f"{name}_sign": float((number > 0) - (number < 0)),
        f"{name}_size": math.log(size) if size else None,
    }


def one_hot(name: str, options: type[Enum], chosen: Enum | None) -> Features:
    """1 for the member that it is; all are missing where it is not known."""
    return many_hot(name, options, None if chosen is None else (chosen,))


@lru_cache(maxsize=MAX_CODES)
def many_hot(name: str, options: type[Enum], chosen: Collection[Enum] | None) -> Features:
    """1 for each member that is there; all are missing where that is not known."""
    return {
        f"{name}_{option.name.lower()}": flag(None if chosen is None else option in chosen)
        for option in options
    }


def rows(features: Sequence[Features], names: Sequence[str]) -> npt.NDArray[np.float32]:
    """``(num, 2 F)``: all values, 0 for what is missing, and behind them whether each is there."""
    told = [math.nan if value is None else value for each in features for value in each.values()]
    values = np.array(told, dtype=np.float32).reshape(-1, len(names))
    there = np.isfinite(values)
    return np.concatenate([np.where(there, values, 0), there], axis=1, dtype=np.float32)
