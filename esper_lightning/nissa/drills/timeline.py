"""What happens in a drill, in the order in which it does."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

from esper_lightning.nissa.alerts import Alert, AlertState


class What(str, Enum):
    """Of which kind a line is."""

    RUN = "run"
    FAILURE = "failure"
    ALERT = "alert"
    REACTION = "reaction"
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class Moment:
    """One line.

    Attributes:
        at_s: seconds since the drill began.
        what: of which kind it is.
        text: in words.
    """

    at_s: float
    what: What
    text: str

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.what.value:<9} {self.text}"


class TimeLine:
    """Takes notes; any thread may tell it something.

    Args:
        show: called with every line, as it comes.

    Attributes:
        moments: every line so far.
        fired: names of alerts that were raised.
    """

    def __init__(self, show: Callable[[str], object] = print) -> None:
        self.moments: list[Moment] = []
        self.fired: set[str] = set()
        self._firing: set[str] = set()
        self._show = show
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the drill began."""
        return time.monotonic() - self._began

    def tell(self, what: What, text: str) -> None:
        """Add a line."""
        with self._lock:
            moment = Moment(self.elapsed_s, what, text)
            self.moments.append(moment)
            self._show(str(moment))

    def hear(self, alert: Alert) -> None:
        """An alert was raised or is over; to be given to a book."""
        if alert.state is AlertState.FIRING:
            self.fired.add(alert.name)
            self._firing.add(alert.name)
            self.tell(What.ALERT, f"{alert.name}: inactive -> firing. {alert.text}")
        elif alert.state is AlertState.RESOLVED:
            self._firing.discard(alert.name)
            self.tell(What.RECOVERY, f"{alert.name}: firing -> resolved")

    def are_over(self, alerts: Collection[str]) -> bool:
        """Whether all of these alerts were raised, and are over."""
        return self.fired.issuperset(alerts) and self._firing.isdisjoint(alerts)
