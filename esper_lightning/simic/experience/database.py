"""The file of a store of experience, as its threads and processes share it."""

import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from esper_lightning.leyline import EsperError

FORMAT = 1
"""Of the tables."""

_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL UNIQUE,
    ended INTEGER NOT NULL,
    boundaries INTEGER NOT NULL,
    policy TEXT NOT NULL,
    version INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    digest TEXT NOT NULL,
    priority REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS contents (number INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS gone (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    ended INTEGER NOT NULL,
    boundaries INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY,
    beginning TEXT NOT NULL DEFAULT '',
    ended INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    heard INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS runs_that_wait ON runs (beginning, ended);
CREATE TABLE IF NOT EXISTS arrivals (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    envelope TEXT NOT NULL,
    sent_s REAL NOT NULL,
    kind TEXT NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (run_id, envelope)
);
CREATE TABLE IF NOT EXISTS twins (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    beginning TEXT NOT NULL UNIQUE,
    curve BLOB NOT NULL
);
"""


class ExperienceFailed(EsperError):
    """A store of experience that cannot be read or written."""


class Database:
    """One SQLite file that any number of threads and processes use at once.

    What a transaction has committed is on disk, whatever becomes of the process. Each process opens
    it for itself: a connection does not outlive a fork. The folder is a local one: SQLite's shared
    memory does not work over a network.

    Args:
        path: of the file; its folder is made.
        busy_s: how long to wait for another that is writing.

    Raises:
        ExperienceFailed: it cannot be opened, or is of another release.
    """

    def __init__(self, path: Path | str, *, busy_s: float = 30.0) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.RLock()
        self._busy_s = busy_s
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=busy_s, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise self._failed("opened", error) from error
        self._release = weakref.finalize(self, self._connection.close)
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._release()
            raise self._failed("opened", error) from error
        except ExperienceFailed:
            self._release()
            raise

    def _prepare(self) -> None:
        connection = self._connection
        self._write_ahead()
        connection.execute("PRAGMA synchronous = FULL")
        with self.writing():
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version not in (0, FORMAT):
                raise ExperienceFailed(
                    f"{self.path} is of format {version}, this release writes {FORMAT}; "
                    "name another file"
                )
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {FORMAT}")

    def _write_ahead(self) -> None:
        """Of two that open a new file at once one is refused, and SQLite does not let it wait."""
        ends = time.monotonic() + self._busy_s
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                    raise
            time.sleep(0.005)

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction that sees one state of the file, whatever is written meanwhile.

        Raises:
            ExperienceFailed: it cannot be read.
        """
        return self._transaction("BEGIN", "read")

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction, beside which no other process and no other thread writes.

        Raises:
            ExperienceFailed: it cannot be written; nothing was.
        """
        return self._transaction("BEGIN IMMEDIATE", "written")

    @contextmanager
    def _transaction(self, begin: str, what: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute(begin)
                try:
                    yield self._connection
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._release.alive and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise self._failed(what, error) from error

    def close(self) -> None:
        """Let go of the file. Twice is harmless."""
        with self._lock:
            self._release()

    def _failed(self, what: str, error: Exception) -> ExperienceFailed:
        return ExperienceFailed(
            f"the experience in {self.path} cannot be {what}: {error}. Another file can be named; "
            "what runs left on disk can be read into it again"
        )
