"""How much a network may grow."""

import math
from dataclasses import dataclass

from esper_lightning.leyline import InvalidArgument, SystemState
from esper_lightning.leyline.arguments import check_number

BACKWARD_FACTOR = 3
"""Training FLOPs over forward FLOPs: the backward pass does two products for each of the forward's
(Kaplan et al. 2020, section 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one seed adds.

    Attributes:
        parameters: number of parameters.
        flops: training FLOPs per sample.
    """

    parameters: int
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much may still be added.

    Attributes:
        parameters: number of parameters, infinite without a limit, never negative.
        flops: training FLOPs per sample, likewise.
        missing: what is not known that a limit is asked of, empty when all is. Nothing fits then.
    """

    parameters: float
    flops: float
    missing: str = ""

    @property
    def is_unlimited(self) -> bool:
        """True when everything fits."""
        return not self.missing and math.isinf(self.parameters) and math.isinf(self.flops)

    def admits(self, price: Price) -> bool:
        """True when ``price`` fits."""
        return (
            not self.missing and price.parameters <= self.parameters and price.flops <= self.flops
        )

    def share(self, num: int) -> "Room":
        """One of ``num`` equal parts, rounded down, so that all of them together fit."""
        return Room(
            parameters=_floor(self.parameters / num),
            flops=_floor(self.flops / num),
            missing=self.missing,
        )

    def portion(self, *, parameters: tuple[int, int], flops: tuple[int, int]) -> "Room":
        """A part of this room, rounded down, so that parts that sum to one fit together.

        Args:
            parameters: numerator and denominator of the part of the parameters.
            flops: likewise.
        """
        return Room(
            parameters=_part(self.parameters, *parameters),
            flops=_part(self.flops, *flops),
            missing=self.missing,
        )

    def scaled(self, factor: float) -> "Room":
        """The part ``factor`` of this room, rounded down; 0 < ``factor`` <= 1."""
        return Room(
            parameters=_floor(self.parameters * factor),
            flops=_floor(self.flops * factor),
            missing=self.missing,
        )

    def minus(self, price: Price) -> "Room":
        """What is left after ``price``."""
        return Room(
            parameters=max(0.0, self.parameters - price.parameters),
            flops=max(0.0, self.flops - price.flops),
            missing=self.missing,
        )

    def __str__(self) -> str:
        if self.missing:
            return self.missing
        parts = []
        if math.isfinite(self.parameters):
            parts.append(f"{self.parameters:,.0f} parameters")
        if math.isfinite(self.flops):
            parts.append(f"{self.flops:,.0f} training FLOPs per sample")
        return " and ".join(parts) or "no limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthBudget:
    """Limits on what growth adds to the host, fossils and live seeds together; None is no limit.

    Attributes:
        max_parameters: most parameters that growth may add.
        max_growth: the same as a multiple of the host's parameters: with 1.0 the network may
            double.
        max_flops_growth: most training FLOPs per sample that growth may add, as a multiple of the
            host's. Where the host's FLOPs were not counted, nothing can be planted under it.

    Raises:
        InvalidArgument: a limit is negative or not finite.
    """

    max_parameters: int | None = None
    max_growth: float | None = 4.0
    max_flops_growth: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_parameters", "max_growth", "max_flops_growth"):
            limit = getattr(self, name)
            check_number(name, limit, or_none=True)
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise InvalidArgument(
                    f"{name} must be at least 0 and finite, got {limit}; None is no limit"
                )

    def room(self, state: SystemState) -> Room:
        """How much may still be added to the network as it stands."""
        limits = [math.inf]
        if self.max_parameters is not None:
            limits.append(float(self.max_parameters))
        if self.max_growth is not None:
            limits.append(float(math.floor(self.max_growth * state.host_parameters)))
        added = state.num_parameters - state.host_parameters
        flops, missing = self._flops(state)
        return Room(parameters=max(0.0, min(limits) - added), flops=flops, missing=missing)

    def _flops(self, state: SystemState) -> tuple[float, str]:
        if self.max_flops_growth is None:
            return math.inf, ""
        host, now = state.host_flops, state.flops
        if host is None or now is None or not (math.isfinite(host) and math.isfinite(now)):
            return 0.0, "max_flops_growth is set and the network's FLOPs were not counted"
        return max(0.0, _floor(self.max_flops_growth * host) - (now - host)), ""


def check_budget(budget: object) -> None:
    """Refuse what is no budget; None takes the default.

    Raises:
        InvalidArgument: it is something else.
    """
    if not isinstance(budget, GrowthBudget | None):
        raise InvalidArgument(f"budget must be a GrowthBudget, got {budget!r}")


def _part(value: float, numerator: int, denominator: int) -> float:
    """In integers: a float rounds up now and then, and then parts exceed their sum."""
    return float(math.floor(value) * numerator // denominator) if math.isfinite(value) else value


def _floor(value: float) -> float:
    return float(math.floor(value)) if math.isfinite(value) else value
