"""Learning rate policies: pure functions of the step, as factors of a group's initial rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_flag, check_number, check_whole

HostPolicy = Callable[[int, int], float]
"""``policy(step, total_steps)``: factor in [0, 1] for the 0-based optimiser step ``step`` of
``total_steps``. Defined for later steps, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupStableDecay:
    """Rises linearly, stays at 1, falls linearly to a floor.

    The plateau lets what is planted late still learn at the full rate: new parameters that join a
    half-spent cosine hardly learn. Hu et al. 2024, MiniCPM (arXiv:2404.06395), with a linear in
    place of an exponential decay.

    Attributes:
        warmup: fraction of all steps spent rising.
        decay: fraction of all steps spent falling.
        floor: factor after the last step.

    Raises:
        InvalidArgument: a fraction outside [0, 1], or both together more than all steps.
    """

    warmup: float = 0.02
    decay: float = 0.3
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_fractions(self, warmup=self.warmup, decay=self.decay, floor=self.floor)
        if self.warmup + self.decay > 1:
            raise InvalidArgument(
                f"WarmupStableDecay warmup and decay must sum to at most 1, got {self.warmup} and "
                f"{self.decay}"
            )

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor in [0, 1] for one step.

        >>> policy = WarmupStableDecay(warmup=0.2, decay=0.5)
        >>> [policy(step, 10) for step in (0, 1, 5, 6, 9, 10)]
        [0.5, 1.0, 1.0, 0.8, 0.2, 0.0]
        """
        left = _ratio(total_steps - step, self.decay * total_steps)
        return _warmed(step, self.warmup * total_steps) * _between(self.floor, left)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """Rises linearly, then falls along half a cosine to a floor.

    Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts.

    Attributes:
        warmup: fraction of all steps spent rising, below 1.
        floor: factor after the last step.

    Raises:
        InvalidArgument: a fraction outside [0, 1], or nothing but warm-up.
    """

    warmup: float = 0.02
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_fractions(self, warmup=self.warmup, floor=self.floor)
        if self.warmup == 1:
            raise InvalidArgument("Cosine warmup must be below 1, got 1: nothing is left to decay")

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor in [0, 1] for one step.

        >>> policy = Cosine(warmup=0.0)
        >>> [round(policy(step, 4), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
        """
        warmup_steps = self.warmup * total_steps
        done = 1 - _ratio(total_steps - step, total_steps - warmup_steps)
        height = (1 + math.cos(math.pi * done)) / 2
        return _warmed(step, warmup_steps) * _between(self.floor, height)


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """Rises linearly, then stays at 1.

    Attributes:
        warmup: fraction of all steps spent rising.

    Raises:
        InvalidArgument: the fraction is outside [0, 1].
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        _check_fractions(self, warmup=self.warmup)

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor in [0, 1] for one step."""
        return _warmed(step, self.warmup * total_steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Newcomer:
    """The rate of a seed: a warm-up of its own, a multiplier, and whose horizon it lives by.

    Attributes:
        warmup_steps: optimiser steps from planting to the full rate; 1 starts at the full rate.
        multiplier: of the host's rate, above 0.
        own_horizon: instead of the host's factor at this step, take the host policy's whole shape
            (its warm-up included), stretched from planting to the last step.

    Raises:
        InvalidArgument: an attribute outside of what is allowed.
    """

    warmup_steps: int = 20
    multiplier: float = 1.0
    own_horizon: bool = False

    def __post_init__(self) -> None:
        check_whole("Newcomer warmup_steps", self.warmup_steps, least=1)
        check_number("Newcomer multiplier", self.multiplier)
        check_flag("Newcomer own_horizon", self.own_horizon)
        if not math.isfinite(self.multiplier) or self.multiplier <= 0:
            raise InvalidArgument(
                f"Newcomer multiplier must be finite and above 0, got {self.multiplier}"
            )

    def __call__(self, host: HostPolicy, *, step: int, planted_at: int, total_steps: int) -> float:
        """Factor, from 0 to ``multiplier``, for one step.

        Args:
            host: the host's policy.
            step: 0-based optimiser step, not before ``planted_at``.
            planted_at: the first optimiser step after planting.
            total_steps: of the run.

        >>> newcomer = Newcomer(warmup_steps=4)
        >>> [newcomer(Constant(), step=s, planted_at=10, total_steps=20) for s in (10, 12, 13, 14)]
        [0.25, 0.75, 1.0, 1.0]
        """
        age = step - planted_at
        if self.own_horizon:
            shape = host(age, max(1, total_steps - planted_at))
        else:
            shape = host(step, total_steps)
        return self.multiplier * _warmed(age, self.warmup_steps) * shape


def _check_fractions(policy: object, **fractions: float) -> None:
    for name, value in fractions.items():
        check_number(f"{type(policy).__name__} {name}", value)
        if not 0 <= value <= 1:
            raise InvalidArgument(
                f"{type(policy).__name__} {name} must be between 0 and 1, got {value}"
            )


def _ratio(part: float, whole: float) -> float:
    """``part / whole`` limited to [0, 1]; without a whole, whether there is a part at all."""
    if whole <= 0:
        return float(part > 0)
    return min(1.0, max(0.0, part / whole))


def _warmed(step: int, warmup_steps: float) -> float:
    """Warm-up factor: the first step is not 0, the last of the warm-up is 1."""
    return _ratio(step + 1, warmup_steps)


def _between(floor: float, height: float) -> float:
    """From ``floor`` at height 0 to 1 at height 1, both exactly."""
    return floor * (1 - height) + height
