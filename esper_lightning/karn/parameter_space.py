"""What a blueprint's constructor parameters may be."""

import math
from dataclasses import dataclass

from esper_lightning.leyline import InvalidArgument, ParameterValue


@dataclass(frozen=True, slots=True)
class Range:
    """An interval with both ends allowed: of integers when all three values are, else of floats.

    >>> str(Range(1, 8, 4)), str(Range(0.25, 8.0, 4.0))
    ('an integer from 1 to 8', 'a number from 0.25 to 8.0')
    """

    low: float
    high: float
    default: float

    def __post_init__(self) -> None:
        if not self.low <= self.default <= self.high or not math.isfinite(self.high - self.low):
            raise InvalidArgument(f"a range has finite low <= default <= high, got {self!r}")

    @property
    def is_integer(self) -> bool:
        """Whether only integers are allowed."""
        return all(type(value) is int for value in (self.low, self.high, self.default))

    def accept(self, value: object) -> ParameterValue | None:
        """``value`` in the range's own type; None when not allowed (NaN and bool never are)."""
        if isinstance(value, bool) or not isinstance(
            value, int if self.is_integer else int | float
        ):
            return None
        if not self.low <= value <= self.high:
            return None
        return value if self.is_integer else float(value)

    def __str__(self) -> str:
        kind = "an integer" if self.is_integer else "a number"
        return f"{kind} from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values of one type.

    >>> str(Choice((3, 5, 7), 3))
    'one of 3, 5, 7'
    """

    options: tuple[ParameterValue, ...]
    default: ParameterValue

    def __post_init__(self) -> None:
        if self.accept(self.default) is None:
            raise InvalidArgument(f"the default of a choice is one of its options, got {self!r}")

    def accept(self, value: object) -> ParameterValue | None:
        """The option that is ``value``, of the same type; None when there is none."""
        for option in self.options:
            if type(option) is type(value) and option == value:
                return option
        return None

    def __str__(self) -> str:
        return f"one of {', '.join(repr(option) for option in self.options)}"
