"""The latency signal: has training slowed down? It reads what a clock told."""

import math
import statistics

import msgspec

from esper_lightning.leyline import Services, SystemState
from esper_lightning.tamiyo.risk.reading import Reading, highest, number, quotient, within

WINDOW = 12
"""Epochs that the usual length of a step is told from."""

ENOUGH = 5
"""Fewer epochs tell of no usual length."""

LAST = 3
"""Epochs whose median is compared: one that a machine was busy with something else is no sign."""

DOUBLINGS = 4.0
"""Steps that take 16 times as long score 1, those that take twice as long a quarter."""

BOUNDARY_S = 0.5
"""Seconds that a boundary may take without a score; a hundred times as many score 1."""


class Latency(msgspec.Struct, forbid_unknown_fields=True):
    """How long things took.

    Attributes:
        steps: seconds of a step in each epoch, per training FLOP of a sample where they were
            counted: a network that grew may take longer.
        counted: whether they were.
        boundaries: seconds of each boundary.
    """

    steps: list[float] = []
    counted: bool = False
    boundaries: list[float] = []

    def observe(self, state: SystemState) -> Reading | None:
        """The slower of both; None where nothing was measured."""
        if state.services is None:
            return None
        return highest(self._step(state, state.services), self._boundary(state.services))

    def _step(self, state: SystemState, services: Services) -> Reading | None:
        flops = _positive(state.flops)
        seconds = _positive(quotient(services.step_s or 0.0, flops or 1.0))
        if seconds is None:
            return None
        if (flops is not None) != self.counted:
            self.steps, self.counted = [], flops is not None
        self.steps = [*self.steps, seconds][-WINDOW:]
        if len(self.steps) < ENOUGH + LAST:
            return None
        usual = statistics.median(self.steps[:-LAST])
        times = quotient(statistics.median(self.steps[-LAST:]), usual)
        score = within(math.log2(max(1.0, times)) / DOUBLINGS)
        return Reading(score, f"a step takes {times:.2g} times its usual time")

    def _boundary(self, services: Services) -> Reading | None:
        seconds = _positive(services.boundary_s)
        if seconds is None:
            return None
        self.boundaries = [*self.boundaries, seconds][-LAST:]
        if len(self.boundaries) < LAST:
            return None
        typical = statistics.median(self.boundaries)
        score = within(math.log10(max(1.0, typical / BOUNDARY_S)) / 2)
        return Reading(score, f"a boundary takes {typical:.2g} s")


def _positive(value: float | None) -> float | None:
    """A finite number above 0, or None."""
    if value is None:
        return None
    value = number(value)
    return value if math.isfinite(value) and value > 0 else None
