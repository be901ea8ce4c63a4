"""Which slots to plant in first."""

import math
from collections.abc import Sequence

from esper_lightning.leyline import SeedState

CULL_PENALTY = 0.5
"""What each cull leaves of a slot's claim."""


def by_pressure(slots: Sequence[SeedState]) -> list[SeedState]:
    """Slots in the order in which they should grow.

    By pressure, halved for each seed that was culled there. Where the pressure of any of them is
    missing they cannot be compared: then those with fewer culls come first. Ties keep the order of
    ``slots``, which is the configured one.
    """
    if all(_measured(slot.pressure) for slot in slots):
        return sorted(slots, key=lambda slot: -_claim(slot))
    return sorted(slots, key=lambda slot: slot.num_culls)


def describe(slot: SeedState) -> str:
    """The slot's pressure and its culls, in words."""
    pressure = slot.pressure
    told = (
        f"pressure {pressure:.2g}"
        if pressure is not None and _measured(pressure)
        else "pressure not measured"
    )
    return f"{told}, {slot.num_culls} culled there" if slot.num_culls else told


def _claim(slot: SeedState) -> float:
    return (slot.pressure or 0.0) * CULL_PENALTY**slot.num_culls


def _measured(pressure: float | None) -> bool:
    return pressure is not None and math.isfinite(pressure)
