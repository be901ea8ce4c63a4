"""Where mission control hears of runs."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

import msgspec

from esper_lightning.leyline import Event, InvalidArgument, RunEnded, RunSummary
from esper_lightning.leyline.arguments import check_whole

STALE_S = 3600.0
"""Seconds after which a run that tells nothing and has not ended is not live; epochs are long."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the list of runs.

    Attributes:
        id: unique among all runs that are known here.
        name: for people.
        source: where it was heard of.
        updated: Unix time in seconds of the last news.
        live: whether more is expected soon.
        summary: of a run that is over, where it left one.
    """

    id: str
    name: str
    source: str
    updated: float
    live: bool
    summary: RunSummary | None = None


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one run since it was read last.

    Attributes:
        events: in the order in which they happened.
        anew: whether they replace everything that was read before.
        damaged: lines that could not be read and were left out.
        more: whether the next reading finds more at once.
    """

    events: tuple[Event, ...] = ()
    anew: bool = False
    damaged: int = 0
    more: bool = False


class Source(Protocol):
    """Knows runs. All calls come from one thread at a time and must not wait for anything."""

    def cards(self) -> list[Card]:
        """The runs that it knows now."""

    def read(self, run: str) -> News:
        """What happened in a run since the last reading, at first from its beginning.

        Args:
            run: id of one of :meth:`cards`; one that is gone has no news.
        """

    def forget(self, run: str) -> bool:
        """Nobody reads the run any more.

        Returns:
            Whether the next reading begins at its beginning. Otherwise what was read cannot be read
            again, and nothing was forgotten.
        """


class Listener:
    """Runs that tell their events themselves: of this process, or from a bus.

    What is told waits here until it is read, once. May be told by any thread.

    Args:
        name: of where the events come from, for people.
        most_runs: that are remembered; the ones that told nothing for the longest go first.
        most_waiting: events of one run that wait to be read; the oldest are dropped.
        clock: Unix seconds.

    Raises:
        InvalidArgument: a bound is not positive.
    """

    def __init__(
        self,
        name: str = "this process",
        *,
        most_runs: int = 8,
        most_waiting: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_whole("most_runs", most_runs, least=1)
        check_whole("most_waiting", most_waiting, least=1)
        self.name = name
        self.most_runs = most_runs
        self.most_waiting = most_waiting
        self._clock = clock
        self._cards: dict[str, Card] = {}
        self._waiting: dict[str, deque[Event]] = {}
        self._lock = threading.Lock()

    def tell(self, event: Event, *, at: float | None = None) -> None:
        """Something happened in a run.

        Args:
            event: what.
            at: Unix time in seconds at which it happened; None asks the clock.

        Raises:
            InvalidArgument: the event is of no run.
        """
        if not event.run_id:
            raise InvalidArgument(f"a {type(event).__name__} for a run needs its run_id, got ''")
        key = f"{_escaped(self.name)}:{_escaped(event.run_id)}"
        with self._lock:
            self._cards.pop(key, None)
            self._cards[key] = Card(
                id=key,
                name=event.run_id,
                source=self.name,
                updated=self._clock() if at is None else at,
                live=not isinstance(event, RunEnded),
            )
            self._waiting.setdefault(key, deque(maxlen=self.most_waiting)).append(event)
            while len(self._cards) > self.most_runs:
                gone = next(iter(self._cards))
                del self._cards[gone], self._waiting[gone]

    def cards(self) -> list[Card]:
        """The runs that it knows now."""
        now = self._clock()
        with self._lock:
            cards = list(self._cards.values())
        return [
            msgspec.structs.replace(card, live=False) if now - card.updated > STALE_S else card
            for card in cards
        ]

    def read(self, run: str) -> News:
        """What was told of a run since the last reading."""
        with self._lock:
            waiting = self._waiting.get(run)
            if not waiting:
                return News()
            events = tuple(waiting)
            waiting.clear()
        return News(events=events)

    def forget(self, run: str) -> bool:  # noqa: ARG002
        """What was read cannot be read again."""
        return False


def _escaped(text: str) -> str:
    """A part of an id: other texts have others, and it is as it is in every part of an address.

    >>> _escaped("this process"), _escaped("a-b"), _escaped("a/b")
    ('this~20process', 'a-b', 'a~2Fb')
    """
    return quote(text, safe="").replace("~", "%7E").replace("%", "~")
