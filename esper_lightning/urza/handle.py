"""One connection to a library's database: opened when it is first needed, shared by all threads.

A lock is around it, which is also held while the process forks: a connection that nobody is using
at that moment can be left alone by the child, which opens its own.
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects import sqlite  # here, so that opening a library does not wait for it
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from esper_lightning.urza import tables
from esper_lightning.urza.errors import (
    LibraryBusy,
    LibraryError,
    LibraryFull,
    LibraryReadOnly,
    LibraryUnusable,
    storage_errors,
)

_SETTINGS = (
    "foreign_keys = ON",
    "synchronous = FULL",  # what was committed survives a power cut
    "temp_store = MEMORY",
    "trusted_schema = OFF",
)

_SHORTEST_WAIT_S = 0.01


class Handle:
    """A connection to a SQLite file in WAL mode; the file is made where there is none.

    Where the folder cannot be written, the file is opened for reading only: with the log of a
    process that is writing, if there is one, and as a file that does not change otherwise.

    Args:
        path: of the file.
        read_only: whether it cannot be written here.
        writes: whether its transactions keep all other writers out from their beginning.
        busy_s: how long to wait for another process that is writing.

    Attributes:
        lock: is held while the connection is used, and while the process forks.
    """

    def __init__(self, path: Path, *, read_only: bool, writes: bool, busy_s: float) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._read_only = read_only
        self._writes = writes
        self._busy_s = busy_s
        self._engine: Engine | None = None
        self._driver: sqlite3.Connection | None = None
        # pylint: disable-next=unsubscriptable-object
        self._closing: weakref.finalize[[], Handle] | None = None
        self._identity: tuple[object, ...] = ()
        self._openings = 0
        _handles.add(self)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing; it sees one state of the database, whatever others write meanwhile.

        Raises:
            LibraryError: the database cannot be used; nothing was changed.
        """
        with self.lock, self._named(), self._open().connect() as connection, connection.begin():
            yield connection

    def state(self) -> tuple[int, int]:
        """A pair that is another one after any other connection has committed something.

        Raises:
            LibraryError: the database cannot be read.
        """
        with self.lock, self._named():
            self._open()
            assert self._driver is not None
            (version,) = self._driver.execute("PRAGMA data_version").fetchone()
            return self._openings, version

    def close(self) -> None:
        """Let go of the file; it is opened again when it is asked for something."""
        with self.lock:
            if self._closing is not None:
                self._closing()
            self._engine = self._driver = self._closing = None

    def abandon(self) -> None:
        """Leave the connection of the parent process alone, after a fork."""
        if self._closing is not None:
            self._closing.detach()
        _of_parents.append((self._engine, self._driver))
        self._engine = self._driver = self._closing = None

    # Opening

    def _open(self) -> Engine:
        """The engine, made anew after its file was removed, replaced or, if read only, changed."""
        if self._engine is not None and self._identity == self._identify():
            return self._engine
        self.close()
        with storage_errors(self.path.parent):
            if not self._read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            elif not self.path.exists():
                raise LibraryReadOnly(f"{self.path.parent} holds no library, and none can be made")
        driver = self._connect()
        self._driver, self._closing = driver, weakref.finalize(self, driver.close)
        engine = create_engine(
            f"{sqlite.dialect.name}://",
            creator=lambda: driver,
            poolclass=StaticPool,
            hide_parameters=True,
        )
        if self._needs_tables(driver):
            self._use_log(driver)
            event.listen(engine, "begin", _begin_to_write)
            with engine.connect() as connection, connection.begin():
                _upgrade(connection)
            event.remove(engine, "begin", _begin_to_write)
        event.listen(engine, "begin", _begin_to_write if self._writes else _begin)
        self._engine = engine
        self._identity = self._identify()
        self._openings += 1
        return engine

    def _identify(self) -> tuple[object, ...]:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return ()
        if not self._read_only:
            return found.st_dev, found.st_ino
        return found.st_ino, found.st_mtime_ns, found.st_size, self._log().exists()

    def _log(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def _connect(self) -> sqlite3.Connection:
        mode = "mode=rwc"
        if self._read_only:
            mode = "mode=ro" if self._log().exists() else "mode=ro&immutable=1"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{mode}",
            uri=True,
            timeout=self._busy_s,
            isolation_level=None,  # transactions begin where _begin says
            check_same_thread=False,
        )
        try:
            for setting in _SETTINGS:
                connection.execute(f"PRAGMA {setting}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _needs_tables(self, driver: sqlite3.Connection) -> bool:
        """Whether they are to be made or brought up to date; refuses what is no library."""
        application, version, schema = (
            driver.execute(f"PRAGMA {each}").fetchone()[0]
            for each in ("application_id", "user_version", "schema_version")
        )
        empty = schema == 0
        if application != tables.APPLICATION_ID and not (empty and application == 0):
            raise LibraryUnusable(
                f"{self.path} is a database of something else; name another folder "
                "(ESPER_URZA_ROOT), or move the file away"
            )
        if version > tables.SCHEMA_VERSION:
            raise LibraryUnusable(
                f"{self.path} was written by a later release (its tables are of version {version}, "
                f"this release knows {tables.SCHEMA_VERSION}); install that release, or name "
                "another folder (ESPER_URZA_ROOT)"
            )
        if version == tables.SCHEMA_VERSION:
            return False
        if self._read_only:
            raise LibraryReadOnly(
                f"{self.path} is of an earlier release and cannot be brought up to date, since it "
                "cannot be written here; open it once where it can"
            )
        return True

    def _use_log(self, driver: sqlite3.Connection) -> None:
        """Switch to WAL mode. SQLite does not wait for others here, so this does."""
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                driver.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_SHORTEST_WAIT_S)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Give the errors of SQLite their names."""
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> LibraryError:
        code = _code(error)
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
            return LibraryFull(f"no space is left for {self.path}; nothing was stored")
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LibraryBusy(
                f"another process kept {self.path} locked for {self._busy_s:g} s; try again later"
            )
        if code & 0xFF == sqlite3.SQLITE_READONLY:
            return LibraryReadOnly(f"{self.path} cannot be written by this user")
        if code == sqlite3.SQLITE_NOTADB:
            return LibraryUnusable(
                f"{self.path} is not a database; move it away, and a new library is made there"
            )
        if code & 0xFF == sqlite3.SQLITE_CORRUPT:
            return LibraryUnusable(
                f"{self.path} is damaged; move it away, and a new library is made there"
            )
        return LibraryUnusable(f"{self.path} cannot be used: {getattr(error, 'orig', error)}")


_handles: "weakref.WeakSet[Handle]" = weakref.WeakSet()
_held: list[Handle] = []
_of_parents: list[object] = []
"""Connections of the process this one was forked from: closing one could undo its work."""

_forking = threading.Lock()
"""So that one thread forks at a time."""


def _hold_all() -> None:
    _forking.acquire()  # pylint: disable=consider-using-with
    _held.extend(_handles)
    for handle in _held:
        handle.lock.acquire()  # pylint: disable=consider-using-with


def _release_all() -> None:
    while _held:
        _held.pop().lock.release()
    _forking.release()


def _abandon_all() -> None:
    for handle in _held:
        handle.abandon()
    _release_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_all, after_in_parent=_release_all, after_in_child=_abandon_all)


def _upgrade(connection: Connection) -> None:
    """Within a transaction: another process may have been faster."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version == 0:
        tables.metadata.create_all(connection)
    else:
        for each in range(version, tables.SCHEMA_VERSION):
            tables.UPGRADES[each](connection)
    connection.exec_driver_sql(f"PRAGMA application_id = {tables.APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version = {tables.SCHEMA_VERSION}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_to_write(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _code(error: Exception) -> int:
    code: int = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
    return code
