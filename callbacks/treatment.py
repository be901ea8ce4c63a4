"""What is asked about an epoch before anything else happens at its boundary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from esper_lightning.kasmina import Moment
from esper_lightning.leyline import Decision, Intervention

GOVERNOR = "governor"
"""Who decides what a treatment commands, where others are policies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Treatment:
    """What is done about an epoch that went wrong.

    Attributes:
        intervention: why, and what.
        decisions: commands for the suspects' slots.
        undone: the network is that of an earlier boundary again.
    """

    intervention: Intervention
    decisions: Sequence[Decision] = ()
    undone: bool = False


class HealthCheck(Protocol):
    """Who is asked."""

    def examine(self, moment: Moment) -> Treatment | None:
        """Judge the epoch that has just ended; None when it may be kept."""

    def roll_back(self, moment: Moment, reason: str, *, boundaries: int = 1) -> Intervention:
        """Go back some boundaries because a controller says so; 1 undoes the epoch that has ended.

        Raises:
            CommandRefused: it was rolled back too often, or that one is not kept any more.
        """

    def keep(self, moment: Moment, treatment: Treatment | None) -> None:
        """The boundary is over."""
