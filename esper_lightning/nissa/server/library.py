"""All runs that are known, and those of them that somebody looks at."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from esper_lightning.leyline import Event
from esper_lightning.nissa.quantities import is_accuracy
from esper_lightning.nissa.server.run_model import RunModel
from esper_lightning.nissa.server.sources import Card, Source
from esper_lightning.nissa.server.views import RunPatch

MAX_OPEN = 24
"""Runs that are kept in memory; of the others only their entry in the list is."""

MAX_READINGS = 2
"""Readings of one run in a row, so that nobody waits long; the next refresh goes on."""

HOST_ALONE, STATIC, GROWN = "host alone", "static", "grown"
"""Roles of runs, for those who compare."""

Hear = Callable[[Card, int, Sequence[Event]], None]
"""Told a run, the place of its first new event among all that it has told, and the new events."""

log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the list. What is not known is None or empty.

    Attributes:
        id: of the run in this list.
        run_id: of its records.
        name, source, updated, live: see :class:`~esper_lightning.nissa.server.sources.Card`.
        outcome: ``finished``, ``failed: ...``, or empty.
        role: ``grown``, ``static`` (more than its host from the start) or ``host alone``.
        metric: name of the metric of ``value``.
        value: the last one on validation data.
        epochs: that are over.
    """

    id: str
    run_id: str = ""
    name: str
    source: str
    updated: float
    live: bool
    outcome: str = ""
    role: str = ""
    host: str = ""
    policy: str = ""
    seed: int | None = None
    metric: str = ""
    value: float | None = None
    epochs: int = 0
    max_epochs: int | None = None
    parameters: int = 0
    host_parameters: int = 0


class Changes(msgspec.Struct, frozen=True):
    """What a refresh brought: the list where it is another one, and patches of open runs."""

    entries: tuple[Entry, ...] | None
    patches: tuple[RunPatch, ...]


class Library:
    """May be used by several threads.

    Args:
        sources: where runs are heard of; of a run that several know, the first one is believed.
        hear: told the events of runs in memory.
    """

    def __init__(self, sources: Iterable[Source], *, hear: Hear | None = None) -> None:
        self.sources = tuple(sources)
        self._hear = hear
        self._lock = threading.RLock()
        self._entries: tuple[Entry, ...] = ()
        self._cards: dict[str, tuple[Card, Source]] = {}
        self._open: OrderedDict[str, RunModel] = OrderedDict()
        self._behind: set[str] = set()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The list, the latest run first. Waits for nothing."""
        return self._entries

    @property
    def num_open(self) -> int:
        """Runs in memory. Waits for nothing."""
        return len(self._open)

    @property
    def is_behind(self) -> bool:
        """Whether a run has more to be read at once."""
        return bool(self._behind)

    def refresh(self) -> Changes:
        """Hear the news."""
        with self._lock:
            self._list()
            self._behind &= self._open.keys()
            for key, (card, _) in self._cards.items():
                if card.live and key not in self._open and len(self._open) < MAX_OPEN:
                    self._open[key] = RunModel(key)
            patches = [patch for key in list(self._open) if (patch := self._read(key))]
            entries = self._told_once(
                [_entry(card, self._open.get(key)) for key, (card, _) in self._cards.items()]
            )
            changed = entries != self._entries
            self._entries = entries
            return Changes(entries if changed else None, tuple(patches))

    def open(self, key: str) -> RunPatch | None:
        """Everything that is known of a run, which is in memory from now on.

        Returns:
            None where there is no such run.
        """
        with self._lock:
            if key not in self._cards:
                return None
            if key not in self._open:
                self._open[key] = RunModel(key)
                self._read(key)
            self._open.move_to_end(key)
            self._close_some()
            return self._open[key].whole()

    def _list(self) -> None:
        found = [(card, source) for source in self.sources for card in source.cards()]
        found.sort(key=lambda pair: (-pair[0].updated, pair[0].id))
        before = self._cards
        self._cards = {card.id: (card, source) for card, source in found}
        for key in [key for key in self._open if key not in self._cards]:
            del self._open[key]
            before[key][1].forget(key)  # one that comes back is read from its beginning

    def _told_once(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """A run that several sources know stands in the list as the first of them tells it."""
        ranks = {
            entry.id: self.sources.index(self._cards[entry.id][1])
            for entry in entries
            if entry.run_id
        }
        first: dict[str, int] = {}
        for entry in entries:
            if entry.run_id:
                first[entry.run_id] = min(
                    ranks[entry.id], first.get(entry.run_id, len(self.sources))
                )
        return tuple(
            entry for entry in entries if not entry.run_id or ranks[entry.id] == first[entry.run_id]
        )

    def _read(self, key: str) -> RunPatch | None:
        card, source = self._cards[key]
        model = self._open[key]
        try:
            self._take_news(card, source, model)
            return model.patch()
        except Exception:  # pylint: disable=broad-exception-caught
            # Records that contradict each other must not hide the other runs.
            log.exception("run %s (%s) cannot be told", key, card.name)
            model.begin_anew()
            return None

    def _take_news(self, card: Card, source: Source, model: RunModel) -> None:
        for _ in range(MAX_READINGS):
            news = source.read(card.id)
            if news.anew:
                model.begin_anew()
            model.damaged += news.damaged
            if news.events:
                first = model.num_events
                model.take(news.events)
                self._tell(card, first, news.events)
            if not news.more:
                self._behind.discard(card.id)
                break
            self._behind.add(card.id)

    def _tell(self, card: Card, first: int, events: Sequence[Event]) -> None:
        if self._hear is None:
            return
        try:
            self._hear(card, first, events)
        except Exception:  # pylint: disable=broad-exception-caught
            # What cannot be counted or searched can be shown, and so can the other runs.
            log.exception("events of run %s (%s) were not heard", card.id, card.name)

    def _close_some(self) -> None:
        over = [key for key in self._open if not self._cards[key][0].live]
        for key in over:
            if len(self._open) <= MAX_OPEN:
                break
            if self._cards[key][1].forget(key):
                del self._open[key]


def _entry(card: Card, model: RunModel | None) -> Entry:
    summary = card.summary
    told = Entry(
        id=card.id, name=card.name, source=card.source, updated=card.updated, live=card.live
    )
    if summary is not None and not card.live:
        metric = next((m for m in sorted(summary.validation) if is_accuracy(m)), "")
        return msgspec.structs.replace(
            told,
            run_id=summary.run_id,
            outcome=summary.outcome,
            role=_role(summary.host_parameters, summary.parameters, summary.policy),
            host=summary.host,
            policy=summary.policy,
            seed=summary.seed,
            metric=metric,
            value=summary.validation.get(metric),
            epochs=summary.epochs,
            parameters=summary.parameters,
            host_parameters=summary.host_parameters,
        )
    if model is None:
        return told
    head = model.whole().head
    if head is None:  # no epoch was over; it may have ended before
        outcome = model.outcome
        return msgspec.structs.replace(told, live=card.live and not outcome, outcome=outcome)
    return msgspec.structs.replace(
        told,
        run_id=head.run_id,
        live=card.live and not head.outcome,
        outcome=head.outcome,
        role=_role(head.host_parameters, head.parameters, head.policy),
        policy=head.policy,
        metric=head.validation,
        value=head.metrics.get(head.validation),
        epochs=head.epoch,
        max_epochs=head.max_epochs,
        parameters=head.parameters,
        host_parameters=head.host_parameters,
    )


def _role(host: int, now: int, policy: str) -> str:
    if policy == "never":
        return HOST_ALONE if now == host else STATIC
    return GROWN
