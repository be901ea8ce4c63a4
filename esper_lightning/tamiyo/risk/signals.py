"""The five signals of a boundary."""

import msgspec

from esper_lightning.leyline import RiskLevel, Signal, SystemState
from esper_lightning.tamiyo.risk.gradients import Gradients
from esper_lightning.tamiyo.risk.latency import Latency
from esper_lightning.tamiyo.risk.lifecycle import Lifecycle
from esper_lightning.tamiyo.risk.performance import Performance
from esper_lightning.tamiyo.risk.reading import Reading
from esper_lightning.tamiyo.risk.resources import resources
from esper_lightning.tamiyo.risk.rules import RiskRules

CEILINGS = {
    Signal.GRADIENT: RiskLevel.RED,
    Signal.PERFORMANCE: RiskLevel.CRITICAL,
    Signal.RESOURCES: RiskLevel.ORANGE,
    Signal.LATENCY: RiskLevel.ORANGE,
    Signal.LIFECYCLE: RiskLevel.RED,
}
"""The highest level that a signal raises. To undo an epoch helps where the network became worse,
and to pause seeds where they are at fault; against scarcity it helps not to plant."""


class Signals(msgspec.Struct, forbid_unknown_fields=True):
    """What the signals of a run are told from."""

    gradients: Gradients
    performance: Performance
    latency: Latency
    lifecycle: Lifecycle

    @classmethod
    def empty(cls) -> "Signals":
        """Before the first boundary."""
        return cls(
            gradients=Gradients(),
            performance=Performance(),
            latency=Latency(),
            lifecycle=Lifecycle(),
        )

    def observe(
        self, state: SystemState, *, rules: RiskRules, deterministic: bool
    ) -> dict[Signal, Reading]:
        """Take in one boundary.

        Args:
            state: at the boundary.
            rules: with the budget.
            deterministic: leave out what a clock told.

        Returns:
            What was measured; a signal that was not is absent.
        """
        readings = {
            Signal.GRADIENT: self.gradients.observe(state),
            Signal.PERFORMANCE: self.performance.observe(state),
            Signal.RESOURCES: resources(state, rules.budget),
            Signal.LATENCY: None if deterministic else self.latency.observe(state),
            Signal.LIFECYCLE: self.lifecycle.observe(state),
        }
        return {signal: reading for signal, reading in readings.items() if reading is not None}
