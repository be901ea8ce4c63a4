"""A store of experience: recorded runs, bounded, prioritised, each once."""

import hashlib
import logging
import math
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from esper_lightning.leyline import DecodeError, InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.simic.episode import Episode
from esper_lightning.simic.experience.database import Database, ExperienceFailed
from esper_lightning.simic.experience.prioritised import (
    CORRECTION,
    EXPONENT,
    LEAST,
    check_exponent,
    draw,
    probabilities,
    weights,
)
from esper_lightning.simic.experience.taught import episodes_of
from esper_lightning.simic.recording import Recording, episode
from esper_lightning.simic.reward import Utility
from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tamiyo.heuristic import BUDGET

log = logging.getLogger(__name__)

REMEMBERED = 10
"""For each recording that there is room for, so many that went are known and not taken again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What was drawn, in order; one may stand there more than once.

    Attributes:
        recordings: what was drawn.
        weights: how much each counts, above 0 and at most 1.
        probabilities: with which each was drawn.
    """

    recordings: tuple[Recording, ...]
    weights: tuple[float, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    number: int
    id: str
    digest: str
    priority: float


class Experience:
    """Recordings in one SQLite file, which outlives who writes it and is shared by processes.

    Of a run there is one recording, the longest: the same one again, or a part of it, changes
    nothing. When there is no room, the one of the lowest priority goes, of equal ones the oldest;
    what went does not come back. Age is counted in recordings that came later, and in versions of
    the policy, never by a clock: a pause makes nothing older.

    A recording that is damaged on disk is told by name, left out, and takes nothing with it.

    Args:
        path: of the file; its folder is made. On a local disk.
        capacity: recordings, at most.
        max_bytes: of all of them, as they are stored.
        max_age: recordings that may have come after one; None for any number.
        max_lag: versions that a recording's policy may be behind the newest one of its name that is
            here; None for any number. Recordings of policies without versions have no lag.
        exponent: how much priority counts, 0 to 1: alpha of Schaul et al. 2016.
        utility: what episodes are measured by; None takes the defaults.
        budget: limits of growth, those of the policies that decided.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
        ExperienceFailed: the file cannot be opened, or is of another release.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        capacity: int = 10_000,
        max_bytes: int = 2**30,
        max_age: int | None = None,
        max_lag: int | None = None,
        exponent: float = EXPONENT,
        utility: Utility | None = None,
        budget: GrowthBudget = BUDGET,
    ) -> None:
        check_whole("capacity", capacity, least=1)
        check_whole("max_bytes", max_bytes, least=1)
        check_whole("max_age", max_age, least=1, or_none=True)
        check_whole("max_lag", max_lag, least=0, or_none=True)
        check_number("exponent", exponent)
        check_exponent("exponent", exponent)
        self._capacity, self._max_bytes = capacity, max_bytes
        self._max_age, self._max_lag = max_age, max_lag
        self._exponent = exponent
        self._utility = utility or Utility()
        self._budget = budget
        self._damage: dict[str, str] = {}
        self.database = Database(path)

    # -- what comes -------------------------------------------------------------------------------

    def add(self, recording: Recording) -> bool:
        """Keep a recording; when this returns, it is on disk.

        It begins with the highest priority of all, so that it is drawn soon.

        Returns:
            Whether it is there now and was not before; False for what is known, for what went
            before, and for what is too old to be kept.

        Raises:
            InvalidArgument: it has no boundary, or is larger than all there is room for.
            ExperienceFailed: the file cannot be written; nothing was.
        """
        if not recording.boundaries:
            raise InvalidArgument(
                f"the recording of run {recording.run_id!r} has no boundary: nothing was decided"
            )
        data = recording.to_bytes()
        if len(data) > self._max_bytes:
            raise InvalidArgument(
                f"the recording of run {recording.run_id!r} has {len(data):,} bytes, and there is "
                f"room for {self._max_bytes:,}; raise max_bytes"
            )
        with self.database.writing() as database:
            if not self._is_news(database, recording):
                return False
            number = _insert(database, recording, data)
            self._forget_old(database)
            row = database.execute("SELECT 1 FROM entries WHERE number = ?", (number,)).fetchone()
        return row is not None

    def knows(self, run_id: str) -> bool:
        """Whether the whole of a run is here, or was."""
        with self.database.reading() as database:
            return any(
                database.execute(
                    f"SELECT 1 FROM {table} WHERE run_id = ? AND ended", (run_id,)
                ).fetchone()
                for table in ("entries", "gone")
            )

    def update_priorities(self, priorities: Mapping[str, float]) -> None:
        """What was expected of recordings and did not come true, such as their mean |advantage|.

        Args:
            priorities: by id, at least 0 and finite. Recordings that are gone are left aside.

        Raises:
            InvalidArgument: one is negative or not finite; nothing was changed.
            ExperienceFailed: the file cannot be written; nothing was.
        """
        for name, value in priorities.items():
            check_number(f"the priority of {name}", value)
            if not 0 <= value < math.inf:
                raise InvalidArgument(
                    f"a priority must be at least 0 and finite, got {value} for {name}"
                )
        told = [(float(value) + LEAST, name) for name, value in priorities.items()]
        with self.database.writing() as database:
            database.executemany("UPDATE entries SET priority = ? WHERE id = ?", told)

    # -- what there is ----------------------------------------------------------------------------

    def __len__(self) -> int:
        """Recordings, the damaged ones included."""
        with self.database.reading() as database:
            return int(database.execute("SELECT count(*) FROM entries").fetchone()[0])

    def ids(self) -> list[str]:
        """Of all recordings, the oldest first."""
        with self.database.reading() as database:
            return [each.id for each in _entries(database)]

    def get(self, identifier: str) -> Recording:
        """One recording.

        Raises:
            InvalidArgument: there is none of this id.
            DecodeError: it is damaged, or of another release.
            ExperienceFailed: the file cannot be read.
        """
        with self.database.reading() as database:
            for entry in _entries(database, "WHERE id = ?", (identifier,)):
                return self._read(database, entry)
        raise InvalidArgument(f"{self.database.path} has no recording {identifier!r}")

    def sample(self, num: int, *, seed: int, correction: float = CORRECTION) -> Drawn:
        """Draw by priority, with repetition; the same seed draws the same from the same store.

        Args:
            num: how many.
            seed: of the draw.
            correction: how far weights undo that some are drawn more often, 0 to 1: beta of Schaul
                et al. 2016, 1 undoes it wholly.

        Raises:
            InvalidArgument: an argument outside of what is allowed.
            ExperienceFailed: there is nothing to draw from.
        """
        check_whole("num", num, least=1)
        check_whole("seed", seed, least=0)
        check_number("correction", correction)
        check_exponent("correction", correction)
        with self.database.reading() as database:
            while True:
                # By id, so that the order in which processes wrote does not matter.
                entries = sorted(self._sound(database), key=lambda each: each.id)
                if not entries:
                    raise ExperienceFailed(f"there is nothing to draw from in {self.database.path}")
                odds = probabilities(
                    np.array([each.priority for each in entries], dtype=np.float64), self._exponent
                )
                drawn = draw(odds, num, seed=seed)
                found = self._read_all(database, [entries[place] for place in drawn])
                if len(found) == len(set(drawn)):
                    break
        return Drawn(
            recordings=tuple(found[entries[place].number] for place in drawn),
            weights=tuple(weights(odds, drawn, correction=correction)),
            probabilities=tuple(float(odds[place]) for place in drawn),
        )

    def recordings(self) -> list[Recording]:
        """All that are whole, the oldest first."""
        with self.database.reading() as database:
            return list(self._read_all(database, self._sound(database)).values())

    def episodes(self) -> list[Episode]:
        """Of all recordings that teach anything, the oldest first."""
        return episodes_of(self.recordings(), utility=self._utility, budget=self._budget)

    def episode(self, recording: Recording) -> Episode | None:
        """What a recording teaches by this store's utility and budget; None where it is nothing.

        Raises:
            InvalidArgument: there is no utility to be told.
        """
        return episode(recording, utility=self._utility, budget=self._budget)

    def damaged(self) -> dict[str, str]:
        """Look at all recordings: by id, what is wrong with those that are damaged."""
        with self.database.reading() as database:
            self._read_all(database, _entries(database))
        return dict(self._damage)

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- one transaction --------------------------------------------------------------------------

    def _is_news(self, database: sqlite3.Connection, recording: Recording) -> bool:
        """Whether it tells more of its run than is known; what it replaces goes."""
        extent = _extent(recording)
        for table in ("entries", "gone"):
            row = database.execute(
                f"SELECT ended, boundaries FROM {table} WHERE run_id = ?", (recording.run_id,)
            ).fetchone()
            if row is not None and tuple(row) >= extent:
                return False
        database.execute(
            "DELETE FROM contents WHERE number IN (SELECT number FROM entries WHERE run_id = ?)",
            (recording.run_id,),
        )
        for table in ("entries", "gone"):
            database.execute(f"DELETE FROM {table} WHERE run_id = ?", (recording.run_id,))
        return True

    def _forget_old(self, database: sqlite3.Connection) -> None:
        if self._max_lag is not None:
            _forget(
                database,
                "version > 0 AND version + ? < (SELECT max(version) FROM entries AS other "
                "WHERE other.policy = entries.policy)",
                self._max_lag,
            )
        if self._max_age is not None:
            _forget(database, "number + ? < (SELECT max(number) FROM entries)", self._max_age)
        num, size = database.execute("SELECT count(*), sum(bytes) FROM entries").fetchone()
        while num > self._capacity or (size or 0) > self._max_bytes:
            number, part = database.execute(
                "SELECT number, bytes FROM entries ORDER BY priority, number LIMIT 1"
            ).fetchone()
            _forget(database, "number = ?", number)
            num, size = num - 1, size - part
        database.execute(
            "DELETE FROM gone WHERE number + ? <= (SELECT max(number) FROM gone)",
            (REMEMBERED * self._capacity,),
        )

    def _sound(self, database: sqlite3.Connection) -> list[_Entry]:
        return [each for each in _entries(database) if each.id not in self._damage]

    def _read_all(
        self, database: sqlite3.Connection, entries: Collection[_Entry]
    ) -> dict[int, Recording]:
        """By number, those that are whole; of the others it is remembered."""
        found: dict[int, Recording] = {}
        for entry in entries:
            if entry.number in found or entry.id in self._damage:
                continue
            try:
                found[entry.number] = self._read(database, entry)
            except DecodeError as error:
                self._damage[entry.id] = str(error)
                log.warning("%s; it is left out", error)
        return found

    def _read(self, database: sqlite3.Connection, entry: _Entry) -> Recording:
        where = f"recording {entry.id} in {self.database.path}"
        try:
            row = database.execute(
                "SELECT data FROM contents WHERE number = ?", (entry.number,)
            ).fetchone()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
                raise
            raise DecodeError(f"{where} cannot be read: {error}") from error
        data = b"" if row is None else bytes(row[0])
        if hashlib.sha256(data).hexdigest() != entry.digest:
            raise DecodeError(f"{where} is damaged: its bytes are not those that were stored")
        try:
            return Recording.from_bytes(data)
        except DecodeError as error:
            raise DecodeError(f"{where}: {error}") from error


def _extent(recording: Recording) -> tuple[int, int]:
    return int(recording.end is not None), len(recording.boundaries)


def _insert(database: sqlite3.Connection, recording: Recording, data: bytes) -> int:
    highest = database.execute("SELECT max(priority) FROM entries").fetchone()[0]
    row = database.execute(
        "INSERT INTO entries (id, run_id, ended, boundaries, policy, version, bytes, digest, "
        "priority) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            recording.id,
            recording.run_id,
            *_extent(recording),
            recording.policy,
            recording.version,
            len(data),
            hashlib.sha256(data).hexdigest(),
            1.0 if highest is None else highest,
        ),
    )
    number = int(row.lastrowid or 0)
    database.execute("INSERT INTO contents (number, data) VALUES (?, ?)", (number, data))
    return number


def _forget(database: sqlite3.Connection, condition: str, value: int) -> None:
    rows = database.execute(
        f"SELECT number, run_id, ended, boundaries FROM entries WHERE {condition}", (value,)
    ).fetchall()
    for number, *told in rows:
        database.execute("DELETE FROM entries WHERE number = ?", (number,))
        database.execute("DELETE FROM contents WHERE number = ?", (number,))
        database.execute(
            "INSERT OR REPLACE INTO gone (run_id, ended, boundaries) VALUES (?, ?, ?)", told
        )


def _entries(
    database: sqlite3.Connection, where: str = "", values: Sequence[str] = ()
) -> list[_Entry]:
    rows = database.execute(
        f"SELECT number, id, digest, priority FROM entries {where} ORDER BY number", values
    ).fetchall()
    return [
        _Entry(number=number, id=identifier, digest=digest, priority=priority)
        for number, identifier, digest, priority in rows
    ]
