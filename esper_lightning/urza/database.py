"""The database of a library, as its readers and its writers see it."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from esper_lightning.urza.errors import LibraryReadOnly
from esper_lightning.urza.handle import Handle


class Database:
    """A connection that reads and one that writes: who reads never waits for who writes.

    Args:
        path: of the file; its folder is there.
        busy_s: how long to wait for another process that is writing.

    Attributes:
        read_only: whether it can be read and not written.
        lock: keeps other threads of this process from reading.
    """

    def __init__(self, path: Path, *, busy_s: float) -> None:
        self.read_only = not (
            os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
        )
        self._folder = path.parent
        self._reader, self._writer = (
            Handle(path, read_only=self.read_only, writes=writes, busy_s=busy_s)
            for writes in (False, True)
        )
        self.lock = self._reader.lock

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the database, whatever is written meanwhile.

        Raises:
            LibraryError: it cannot be read.
        """
        return self._reader.transaction()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, beside which no other process and no other thread writes.

        Raises:
            LibraryError: it cannot be written; nothing was.
        """
        self.check_writable()
        with self._writer.transaction() as connection:
            yield connection

    def check_writable(self) -> None:
        """Refuse to go on where it can only be read.

        Raises:
            LibraryReadOnly: it is so.
        """
        if self.read_only:
            raise LibraryReadOnly(
                f"{self._folder} cannot be written by this user; what is there can be read. Name "
                "another folder (ESPER_URZA_ROOT), or make this one writable"
            )

    def state(self) -> tuple[int, int]:
        """A pair that is another one after any process or thread has committed something.

        Raises:
            LibraryError: it cannot be read.
        """
        return self._reader.state()

    def close(self) -> None:
        """Let go of the file; it is opened again when it is asked for something."""
        self._reader.close()
        self._writer.close()
