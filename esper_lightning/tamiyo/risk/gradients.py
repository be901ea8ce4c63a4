"""The gradient signal: do gradients arrive, finite, and of the size that they were?"""

import math
from collections.abc import Iterator

import msgspec

from esper_lightning.leyline import LIVE_STAGES, SeedState, SystemState
from esper_lightning.tamiyo.risk.reading import Reading, highest, number, quotient, within

WINDOW = 8
"""Epochs whose largest gradient one is compared with."""

ENOUGH = 3
"""Fewer epochs say nothing about its size."""

DECADES = 3.0
"""A gradient 1,000 times the largest of late scores 1, one ten times as large a third of that."""

BLOCKED = 0.4
"""Score of a seed whose gradient has become exactly 0: it harms nobody, and learns nothing."""

NOT_FINITE = 0.85
"""Score of a gradient's norm that is NaN or infinite though it was guarded."""


class Series(msgspec.Struct, forbid_unknown_fields=True):
    """Gradient norms of one thing.

    Attributes:
        of: what it is; another one begins anew.
        norms: the last finite ones.
    """

    of: str
    norms: list[float] = []


class Gradients(msgspec.Struct, forbid_unknown_fields=True):
    """What gradients were in every slot: by slot, those of its seed and of its host module."""

    seeds: dict[str, Series] = {}
    hosts: dict[str, Series] = {}

    def observe(self, state: SystemState) -> Reading | None:
        """The worst of any slot; None where no gradient was measured."""
        self.seeds = {slot.slot: self._of_seed(slot) for slot in state.slots}
        self.hosts = {
            slot.slot: self.hosts.get(slot.slot, Series(of="host")) for slot in state.slots
        }
        return highest(
            *(
                reading
                for slot in state.slots
                for reading in self._readings(slot, steps=state.steps_per_epoch)
            )
        )

    def _of_seed(self, slot: SeedState) -> Series:
        """A stage has its own size: what a seed's gradient comes from changes with it."""
        of = f"{slot.stage.name} {slot.blueprint} {slot.cohort}"
        known = self.seeds.get(slot.slot)
        return known if known is not None and known.of == of else Series(of=of)

    def _readings(self, slot: SeedState, *, steps: int) -> Iterator[Reading | None]:
        if slot.stage in LIVE_STAGES:
            yield _dropped(slot, steps=steps)
            yield _size(
                slot.gradient_norm, self.seeds[slot.slot], f"the seed in {slot.slot}", learns=True
            )
        yield _size(slot.pressure, self.hosts[slot.slot], f"the host at {slot.slot}", learns=False)


def _dropped(slot: SeedState, *, steps: int) -> Reading | None:
    """The square root of the share that was dropped: 0.35 for every eighth, 0.7 for every other."""
    if slot.dropped_gradients is None:
        return None
    share = within(quotient(slot.dropped_gradients, steps))
    return Reading(
        math.sqrt(share),
        f"{slot.dropped_gradients} of {steps} gradients of the seed in {slot.slot} not finite",
    )


def _size(norm: float | None, series: Series, whose: str, *, learns: bool) -> Reading | None:
    """Against its own history, which it then joins.

    Args:
        norm: of this epoch.
        series: of the epochs before.
        whose: in words.
        learns: exactly 0 is a fault.
    """
    if norm is None:
        return None
    norm = number(norm)
    if not math.isfinite(norm):
        return Reading(NOT_FINITE, f"the gradient of {whose} is {norm}")
    largest = max(series.norms) if len(series.norms) >= ENOUGH else None
    series.norms = [*series.norms, norm][-WINDOW:]
    if largest is None or not largest > 0:
        return None
    if norm <= 0:
        return Reading(BLOCKED if learns else 0.0, f"no gradient reaches {whose}")
    times = norm / largest
    return Reading(
        within(math.log10(max(1.0, times)) / DECADES),
        f"the gradient of {whose} is {times:.2g} times its largest of late",
    )
