"""The outbox: what must not be lost waits on disk until the server has acknowledged it."""

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from esper_lightning.leyline import EsperError
from esper_lightning.oona.settings import Role

log = logging.getLogger(__name__)

OUTBOX_NAME = "oona-outbox.sqlite"
"""The outbox's file name, in the folder of a run."""

_TABLE = """
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    role TEXT NOT NULL,
    sealed BLOB NOT NULL
)
"""


class OutboxFailed(EsperError):
    """The outbox's file cannot be written or read."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sealed message that the server has not acknowledged."""

    number: int
    role: Role
    sealed: bytes


class Outbox:
    """Sealed messages in the order in which they came, in one SQLite file.

    What :meth:`add` returned from is in the file and outlives the process; after a power cut the
    last of it may be missing, and the rest is whole. It goes when
    :meth:`remove` is told that the server has it; a process that ends between the two sends it
    again, which its id makes harmless. The file belongs to the one process that has it open; any
    number of threads may use it, one at a time.

    A file that SQLite calls damaged is put aside under another name, and a new one is begun.

    Args:
        path: the file; its folder is made.

    Raises:
        OutboxFailed: it cannot be opened, for example since another process has it open.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            is_locked = "locked" in str(error)
            told = "another process has it open" if is_locked else error
            raise OutboxFailed(f"the outbox {self.path} cannot be opened: {told}") from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # read-only, locked, full
                raise
            aside = self.path.with_suffix(".damaged")
            log.error("the outbox %s is damaged (%s); it is kept as %s", self.path, error, aside)
            self.path.replace(aside)
            for rest in ("-wal", "-shm"):
                self.path.with_name(self.path.name + rest).unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, timeout=0.5, check_same_thread=False, isolation_level=None
        )
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_TABLE)
            damage = database.execute("PRAGMA quick_check").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def __len__(self) -> int:
        """How many wait.

        Raises:
            OutboxFailed: the file cannot be read.
        """
        try:
            return int(self._database.execute("SELECT count(*) FROM waiting").fetchone()[0])
        except sqlite3.Error as error:  # closed, too
            raise OutboxFailed(f"the outbox {self.path} cannot be read: {error}") from error

    def add(self, sealed: Iterable[tuple[Role, bytes]]) -> list[Waiting]:
        """Write all of them to disk, or none.

        Returns:
            The same, with their numbers.

        Raises:
            OutboxFailed: they could not be written, for example since the disk is full.
        """
        added = []
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for role, data in sealed:
                row = self._database.execute(
                    "INSERT INTO waiting (role, sealed) VALUES (?, ?)", (role.value, data)
                )
                added.append(Waiting(int(row.lastrowid or 0), role, data))
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            raise OutboxFailed(f"the outbox {self.path} cannot be written: {error}") from error
        return added

    def oldest(self, limit: int) -> list[Waiting]:
        """Those that wait longest; what is urgent comes first.

        Raises:
            OutboxFailed: the file cannot be read.
        """
        try:
            rows = self._database.execute(
                "SELECT number, role, sealed FROM waiting ORDER BY role <> ?, number LIMIT ?",
                (Role.EMERGENCY.value, limit),
            ).fetchall()
        except sqlite3.Error as error:
            raise OutboxFailed(f"the outbox {self.path} cannot be read: {error}") from error
        return [Waiting(number, Role(role), sealed) for number, role, sealed in rows]

    def remove(self, acknowledged: Sequence[Waiting]) -> None:
        """The server has these.

        Raises:
            OutboxFailed: the file cannot be written; they are sent again.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "DELETE FROM waiting WHERE number = ?", [(each.number,) for each in acknowledged]
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            raise OutboxFailed(f"the outbox {self.path} cannot be written: {error}") from error

    def _undo(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the file; one in which nothing waits is removed. Twice is harmless."""
        try:
            is_empty = len(self) == 0
        except OutboxFailed:
            is_empty = False
        self._database.close()
        if is_empty:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
