"""Events in an SQLite file with full-text search."""

import logging
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from esper_lightning.leyline import DecodeError, Event, InvalidArgument, decode, encode
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.nissa.events.text import event_epoch, event_slot, event_text

log = logging.getLogger(__name__)

MAX_TERMS = 20
"""Words of one search that count."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    type TEXT NOT NULL,
    epoch INTEGER,
    slot TEXT NOT NULL,
    text TEXT NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_run ON events (run_id, id);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (
    run_id, type, slot, text, content='events', content_rowid='id', tokenize='unicode61'
);
CREATE TRIGGER IF NOT EXISTS events_added AFTER INSERT ON events BEGIN
    INSERT INTO words (rowid, run_id, type, slot, text)
    VALUES (new.id, new.run_id, new.type, new.slot, new.text);
END;
CREATE TRIGGER IF NOT EXISTS events_removed AFTER DELETE ON events BEGIN
    INSERT INTO words (words, rowid, run_id, type, slot, text)
    VALUES ('delete', old.id, old.run_id, old.type, old.slot, old.text);
END;
"""


class FoundEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the store.

    Attributes:
        id: its place in the order in which events were added.
        text: what happened, in words.
        event: the record.
    """

    id: int
    text: str
    event: Event


class EventStore:
    """Keeps events and finds them by words. May be used by several threads.

    Args:
        path: the file, which is made with its folder; ``:memory:`` keeps nothing.
        most: events that are kept; the oldest go first.

    Raises:
        InvalidArgument: ``most`` is not positive, or the file is no such store.
    """

    def __init__(self, path: Path | str = ":memory:", *, most: int = 1_000_000) -> None:
        check_whole("most", most, least=1)
        self.path = path
        self.most = most
        if str(path) != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise InvalidArgument(
                f"{path} is no event store ({error}); name another file, or remove it"
            ) from error

    def add(self, *events: Event) -> None:
        """Keep events, all or none."""
        rows = [
            (
                event.run_id,
                str(type(event).__struct_config__.tag),
                event_epoch(event),
                event_slot(event),
                event_text(event),
                encode(event),
            )
            for event in events
        ]
        with self._lock, self._database:
            self._database.executemany(
                "INSERT INTO events (run_id, type, epoch, slot, text, record) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._database.execute(
                "DELETE FROM events WHERE id <= (SELECT MAX(id) FROM events) - ?", (self.most,)
            )

    def search(self, text: str, limit: int = 50, *, run_id: str = "") -> list[FoundEvent]:
        """The events that have every word of ``text``, the best match first.

        A word also finds longer ones that begin with it. Nothing in ``text`` is a command: signs
        separate words. Without a word, the latest events.

        Args:
            text: words, of which the first 20 count.
            limit: most that are found, 1 to 1,000.
            run_id: of one run only; empty for all.

        Raises:
            InvalidArgument: the limit is out of its range.
        """
        if not 1 <= limit <= 1_000:
            raise InvalidArgument(f"a search finds 1 to 1000 events at most, got {limit}")
        query = _query(text)
        of_run = "AND (? = '' OR events.run_id = ?)"
        columns = "SELECT events.id, events.text, events.record FROM events"
        with self._lock:
            if query:
                found = self._database.execute(
                    f"{columns} JOIN words ON words.rowid = events.id WHERE words MATCH ? {of_run} "
                    "ORDER BY bm25(words), events.id DESC LIMIT ?",
                    (query, run_id, run_id, limit),
                ).fetchall()
            else:
                found = self._database.execute(
                    f"{columns} WHERE 1 {of_run} ORDER BY events.id DESC LIMIT ?",
                    (run_id, run_id, limit),
                ).fetchall()
        return [event for row in found if (event := _found(*row)) is not None]

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._database.execute("SELECT COUNT(*) FROM events").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _query(text: str) -> str:
    """An FTS5 query of quoted prefixes: letters and digits only, whatever ``text`` holds."""
    spaced = "".join(sign if sign.isalnum() else " " for sign in text)
    return " ".join(f'"{word}"*' for word in spaced.split()[:MAX_TERMS])


def _found(number: int, text: str, record: bytes) -> FoundEvent | None:
    """None where the record cannot be read: one that has a NaN, or is of another version."""
    try:
        event: Event = decode(record, Event, what=f"event {number} of the store")
    except DecodeError as error:
        log.warning("left out: %s", error)
        return None
    return FoundEvent(id=number, text=text, event=event)
