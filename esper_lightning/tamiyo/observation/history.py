"""What is remembered of a run between boundaries."""

from collections.abc import Sequence

import msgspec

from esper_lightning.leyline import CommandKind, SystemState
from esper_lightning.tamiyo.observation.scales import finite
from esper_lightning.tamiyo.policy import Choice
from esper_lightning.tamiyo.record import Record

MAX_POINTS = 256
"""Points of the objective's curve that are kept, and cohorts: a seed's trial may last as many
epochs and is still compared with the curve before it."""


class History(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One run as it was observed, bounded in size.

    Attributes:
        record: the last :data:`MAX_POINTS` points of the objective's curve, as many cohorts, and
            how seeds fared.
        peak_rate: highest learning rate so far, None before the first.
    """

    record: Record
    peak_rate: float | None

    @classmethod
    def empty(cls) -> "History":
        """Before the first boundary."""
        return cls(record=Record.empty(), peak_rate=None)

    def observe(self, state: SystemState) -> None:
        """Take in one boundary. The same boundary a second time changes nothing."""
        self.record.observe(state)
        self.record.curve = self.record.curve[-MAX_POINTS:]
        self.record.tried = self.record.tried[-MAX_POINTS:]
        rate = finite(state.learning_rate)
        if rate is not None:
            self.peak_rate = rate if self.peak_rate is None else max(rate, self.peak_rate)

    def note(self, state: SystemState, choices: Sequence[Choice]) -> None:
        """Take in what was chosen at a boundary that was observed."""
        for choice in choices:
            if choice.kind is CommandKind.GERMINATE and not choice.refused:
                self.record.plant(state.slot(choice.slot), choice.blueprint, epoch=state.epoch)
