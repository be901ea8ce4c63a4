"""What mission control knows, and how it is kept up to date while people watch."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from esper_lightning.leyline import Event, Raised, SystemState
from esper_lightning.nissa.alerts import Alert, AlertBook
from esper_lightning.nissa.events.store import EventStore, FoundEvent
from esper_lightning.nissa.server.accountability import AuditLog
from esper_lightning.nissa.server.feed import Feed
from esper_lightning.nissa.server.library import Changes, Entry, Library
from esper_lightning.nissa.server.sources import Card, Source

if TYPE_CHECKING:
    from esper_lightning.nissa.server.watch import RunWatch

log = logging.getLogger(__name__)

RUNS, ALERTS = "runs", "alerts"
"""Topics of the stream beside the runs' ids."""

MAX_VIEWERS = 500
"""Open streams."""

RESTS = 4.0
"""Times as long as a look for news that is rested afterwards, at least."""

LIST_S = 1.0
"""Seconds between two lists of runs that are sent; a live run changes its entry every epoch."""

LOOK_S = 5.0
"""Seconds between two looks at the alert rules."""


class Alerts(Protocol):
    """Alerts, wherever they are raised."""

    def alerts(self) -> Sequence[Alert]:
        """All that are known, the active ones first."""

    def acknowledge(self, alert_id: str, who: str, *, note: Callable[[Alert], object]) -> Alert:
        """Somebody looks after one.

        Args:
            alert_id: its id.
            who: their name.
            note: called before anything is changed; nothing is where it raises.

        Raises:
            InvalidArgument: no alert of this id is firing, or nobody is named.
        """


class Events(Protocol):
    """Events that can be searched."""

    def search(self, text: str, limit: int, *, run_id: str = "") -> Sequence[FoundEvent]:
        """Those that have every word of ``text``."""


class Mission:
    """Runs, alerts and events, and the feed of what changes in them.

    Args:
        sources: where runs are heard of.
        alerts: the alerts; a book of its own where ``raises_alerts``.
        raises_alerts: whether alerts are worked out here, from the records of live runs.
        events: what is searched; a store of its own where ``keeps_events``.
        keeps_events: whether the events of open runs are kept in it here.
        exposition: what ``/metrics`` answers; None answers the metrics of live runs.
        audit: told every change that was asked for.
        token: that changes need.
        every_s: seconds between two looks for news.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        alerts: Alerts,
        raises_alerts: bool,
        events: Events,
        keeps_events: bool,
        exposition: Callable[[], bytes] | None,
        audit: AuditLog,
        token: str,
        every_s: float,
    ) -> None:
        self.alerts = alerts
        self.events = events
        self.audit = audit
        self.token = token
        self.every_s = every_s
        self.feed = Feed()
        self.started = time.monotonic()
        self.num_viewers = 0
        self.errors = 0
        self._store = events if keeps_events and isinstance(events, EventStore) else None
        self._watch = (
            _run_watch(alerts) if raises_alerts and isinstance(alerts, AlertBook) else None
        )
        self._exposition = exposition
        self._stored: dict[tuple[str, str], int] = {}
        self._told: bytes = b""
        self._entries: tuple[Entry, ...] | None = None
        self._looked = self._listed = float("-inf")
        self.library = Library(sources, hear=self._hear)

    def exposition(self) -> bytes:
        """What ``/metrics`` answers."""
        if self._exposition is not None:
            return self._exposition()
        return self._watch.exposition() if self._watch is not None else b""

    def hear_raised(self, raised: Raised) -> None:
        """Somebody else raised an alert, where alerts are worked out here. From any thread."""
        if self._watch is not None:
            self._watch.hear_raised(raised)

    def alerts_now(self) -> bytes:
        """The alerts as JSON."""
        return msgspec.json.encode(list(self.alerts.alerts()))

    async def watch(self) -> None:
        """Hear the news and tell them, until the feed is closed.

        A look that takes long is followed by a long rest: no more than a fifth of one core is used,
        or half of it while long journals are read.
        """
        while not self.feed.closed:
            began = time.monotonic()
            try:
                self._tell(*await asyncio.to_thread(self.look))
            except Exception:  # pylint: disable=broad-exception-caught
                # One broken look must not end all that follow.
                self.errors += 1
                log.exception("a look for news failed")
            rests = 1.0 if self.library.is_behind else RESTS
            await self._rest(max(self.every_s, rests * (time.monotonic() - began)))

    async def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.feed.closed and (left := until - time.monotonic()) > 0:
            await self.feed.wait(self.feed.last, left)

    def look(self) -> tuple[Changes, bytes]:
        """Hear the news: what changed, and the alerts as JSON."""
        changes = self.library.refresh()
        now = time.monotonic()
        if self._watch is not None and now - self._looked >= LOOK_S:
            self._looked = now
            self._watch.look()
        return changes, self.alerts_now()

    def tell_alerts(self, alerts: bytes) -> None:
        """Send the alerts to everybody, if they are others than before."""
        if alerts != self._told:
            self._told = alerts
            self.feed.publish(ALERTS, "alerts", alerts)

    def _tell(self, changes: Changes, alerts: bytes) -> None:
        self._entries = self._entries if changes.entries is None else changes.entries
        now = time.monotonic()
        if self._entries is not None and now - self._listed >= LIST_S:
            self.feed.publish(RUNS, "runs", msgspec.json.encode(self._entries))
            self._listed, self._entries = now, None
        for patch in changes.patches:
            self.feed.publish(patch.id, "run", msgspec.json.encode(patch))
        self.tell_alerts(alerts)

    def _hear(self, card: Card, first: int, events: Sequence[Event]) -> None:
        # The last events of a run come when it is no longer live: its end is one of them.
        goes_on = self._watch is not None and first > 0 and self._watch.hears(card.id)
        if self._watch is not None and (card.live or goes_on):
            self._watch.hear(card.id, events, anew=first == 0)
        if self._store is not None:
            # A run that is opened a second time is not stored a second time.
            key = (card.id, events[0].run_id)
            stored = self._stored.get(key, 0)
            fresh = events[max(0, stored - first) :]
            self._store.add(*(each for each in fresh if not isinstance(each, SystemState)))
            self._stored[key] = max(stored, first + len(events))


def _run_watch(book: AlertBook) -> "RunWatch":
    from esper_lightning.nissa.server.watch import (  # pylint: disable=import-outside-toplevel
        RunWatch,
    )

    return RunWatch(book)
