"""Messages of runs that go on, in the store's file until their run is over."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from esper_lightning.leyline import MESSAGES, Event, RunEnded, SystemState, unpack
from esper_lightning.simic.experience.database import Database
from esper_lightning.simic.experience.pairing import beginning
from esper_lightning.simic.reward import Standing

_TWINS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A message as it came.

    Attributes:
        envelope: its id.
        sent_s: Unix time at which it was made.
        kind: as :data:`esper_lightning.leyline.MESSAGES` names it.
        payload: the packed message.
    """

    envelope: str
    sent_s: float
    kind: str
    payload: bytes


class Arrivals:
    """What has come of runs that are not settled, whichever process heard it, in any order.

    Args:
        database: of the store.
        max_runs: of which messages are kept; of more, the one that was silent longest goes.
        max_bytes: of all messages, likewise.
    """

    def __init__(self, database: Database, *, max_runs: int, max_bytes: int) -> None:
        self._database = database
        self._max_runs, self._max_bytes = max_runs, max_bytes

    def add(self, run_id: str, arrival: Arrival, message: Event) -> list[str]:
        """Keep a message; when this returns, it is on disk. The same one again changes nothing.

        Returns:
            Runs that went because there is no room.

        Raises:
            ExperienceFailed: the file cannot be written; nothing was.
        """
        with self._database.writing() as database:
            row = database.execute(
                "INSERT OR IGNORE INTO arrivals (run_id, envelope, sent_s, kind, payload) "
                "VALUES (?, ?, ?, ?, ?)",
                (run_id, arrival.envelope, arrival.sent_s, arrival.kind, arrival.payload),
            )
            if row.rowcount == 0:
                return []
            heard = database.execute("SELECT max(heard) + 1 FROM runs").fetchone()[0] or 0
            database.execute("INSERT OR IGNORE INTO runs (run_id) VALUES (?)", (run_id,))
            database.execute(
                "UPDATE runs SET bytes = bytes + ?, heard = ? WHERE run_id = ?",
                (len(arrival.payload), heard, run_id),
            )
            if isinstance(message, SystemState) and message.epoch == 0:
                database.execute(
                    "UPDATE runs SET beginning = ? WHERE run_id = ?", (beginning(message), run_id)
                )
            if isinstance(message, RunEnded):
                database.execute("UPDATE runs SET ended = 1 WHERE run_id = ?", (run_id,))
            return self._make_room(database)

    def has_ended(self, run_id: str) -> bool:
        """Whether its end was told."""
        with self._database.reading() as database:
            row = database.execute("SELECT ended FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return row is not None and bool(row[0])

    def events(self, run_id: str) -> list[Event]:
        """What came of a run, in the order in which it was sent.

        Raises:
            DecodeError: a message is damaged.
        """
        with self._database.reading() as database:
            rows = database.execute(
                "SELECT kind, payload FROM arrivals WHERE run_id = ? ORDER BY sent_s, number",
                (run_id,),
            ).fetchall()
        return list(_unpacked(rows))

    def that_wait(self, told: str) -> list[str]:
        """Runs of this beginning that are over and not settled."""
        with self._database.reading() as database:
            rows = database.execute(
                "SELECT run_id FROM runs WHERE beginning = ? AND ended", (told,)
            ).fetchall()
        return [run_id for (run_id,) in rows]

    def forget(self, run_id: str) -> None:
        """It is settled."""
        with self._database.writing() as database:
            _forget(database, run_id)

    def keep_twin(self, told: str, curve: Sequence[Standing]) -> None:
        """What a run of this beginning is compared with."""
        with self._database.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO twins (beginning, curve) VALUES (?, ?)",
                (told, msgspec.msgpack.encode(curve)),
            )
            database.execute(
                "DELETE FROM twins WHERE number + ? <= (SELECT max(number) FROM twins)", (_TWINS,)
            )

    def twin(self, told: str) -> list[Standing] | None:
        """What a run of this beginning is compared with; None where it is not known yet."""
        with self._database.reading() as database:
            row = database.execute(
                "SELECT curve FROM twins WHERE beginning = ?", (told,)
            ).fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0], type=list[Standing])

    def _make_room(self, database: sqlite3.Connection) -> list[str]:
        gone = []
        num, size = database.execute("SELECT count(*), sum(bytes) FROM runs").fetchone()
        while num > self._max_runs or (size > self._max_bytes and num > 1):
            run_id, part = database.execute(
                "SELECT run_id, bytes FROM runs ORDER BY heard LIMIT 1"
            ).fetchone()
            _forget(database, run_id)
            gone.append(str(run_id))
            num, size = num - 1, size - part
        return gone


def _forget(database: sqlite3.Connection, run_id: str) -> None:
    database.execute("DELETE FROM arrivals WHERE run_id = ?", (run_id,))
    database.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))


def _unpacked(rows: Sequence[tuple[str, bytes]]) -> Iterator[Event]:
    for kind, payload in rows:
        message: Any = unpack(payload, MESSAGES[kind], what=kind)
        yield message
