"""Servers that are measured against: they hang, fill up, answer late and die when they are told."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from esper_lightning.leyline import Signer, unseal
from esper_lightning.oona import (
    FIELD,
    Connection,
    Outbox,
    Publisher,
    Role,
    Settings,
    connect,
    embedded,
)

KEY = secrets.token_hex(32).encode()
"""Signs what this process publishes."""

_KEPT = (Role.EMERGENCY, Role.NORMAL, Role.POLICY)

VALKEY, REDIS = "valkey", "redis"
"""The server that ``embedded://`` brings, and the one that is installed on the machine."""


def programs() -> dict[str, Path]:
    """The servers that are there, by name."""
    here = {VALKEY: embedded.bundled()}
    installed = shutil.which("redis-server")
    here[REDIS] = None if installed is None else Path(installed)
    return {name: program for name, program in here.items() if program is not None}


class Server:
    """A server of its own, as ``embedded://`` starts it.

    Args:
        name: one of :func:`programs`.
        folder: of what it keeps; with a short path.
        program: to run.

    Attributes:
        url: by which it is one that is shared.
    """

    def __init__(self, name: str, folder: Path, program: Path) -> None:
        self.name = name
        self._folder, self._program = folder, program
        self._held = embedded.hold(folder, binary=program)
        self.url = f"unix://{self._held.socket}"
        self.settings = Settings.from_environment(self.url)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._held.socket

    def connect(self, timeout_s: float = 5.0) -> Connection:
        """A connection, for who closes it."""
        return connect(self.url, timeout_s=timeout_s)

    def publisher(self, *, outbox: Path | None = None, capacity: int = 10_000) -> Publisher:
        """A publisher as a run has it, for who closes it."""
        return Publisher(
            lambda: connect(self.url),
            Signer(KEY),
            self.settings,
            source="evidence",
            outbox=None if outbox is None else Outbox(outbox),
            capacity=capacity,
        )

    def pause(self) -> None:
        """It takes what is sent to it, and does not answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on after :meth:`pause`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once."""
        pid = self._held.pid
        self._signal(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            while pid is not None:
                os.kill(pid, 0)
                time.sleep(0.001)

    def restart(self) -> None:
        """It is there again after :meth:`kill`, with what it kept."""
        old, self._held = self._held, embedded.hold(self._folder, binary=self._program)
        old.release()

    def limit(self, memory: int) -> None:
        """Let it use so many bytes; 0 is no limit."""
        with self.connect() as connection:
            connection.client.config_set("maxmemory", memory)

    def empty(self) -> None:
        """Delete everything."""
        with self.connect() as connection:
            connection.client.flushall()

    def kept(self) -> tuple[Counter[bytes], int]:
        """What must not be lost and is there.

        Returns:
            Packed messages, each as often as it was published; and how many entries hold one of
            them once more.
        """
        payloads: dict[str, bytes] = {}
        entries = 0
        with self.connect() as connection:
            for role in _KEPT:
                for sealed in _entries(connection, self.settings.streams[role]):
                    envelope = unseal(sealed, Signer(KEY), stream=role.value)
                    payloads[envelope.id] = envelope.payload
                    entries += 1
        return Counter(payloads.values()), entries - len(payloads)

    def stop(self) -> None:
        """The end."""
        self.resume()
        self._held.release()

    def _signal(self, number: int) -> None:
        assert self._held.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._held.pid, number)


def _entries(connection: Connection, stream: str) -> Iterator[bytes]:
    after = b"0"
    while entries := connection.read(stream, after=after):
        for entry_id, fields in entries:
            after = entry_id
            yield fields[FIELD]


@contextlib.contextmanager
def started(name: str) -> Iterator[Server]:
    """A server in a folder of its own, for as long as the block lasts."""
    with TemporaryDirectory(prefix="oona-") as folder:
        server = Server(name, Path(folder), programs()[name])
        try:
            yield server
        finally:
            server.stop()


class SlowProxy:
    """Passes bytes on to a unix socket, and each portion of what comes back ``delay_s`` later.

    Args:
        path: of the socket.

    Attributes:
        url: where it listens.
        delay_s: may be changed.
    """

    def __init__(self, path: Path) -> None:
        self.delay_s = 0.0
        self._path = str(path)
        self._listens = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listens]
        self._threads: list[threading.Thread] = []
        self.url = f"redis://127.0.0.1:{self._listens.getsockname()[1]}"
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                here, _ = self._listens.accept()
                there = socket.socket(socket.AF_UNIX)
                self._sockets += [here, there]
                there.connect(self._path)
                self._begin(self._pass_on, here, there, False)
                self._begin(self._pass_on, there, here, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if is_answer:
                    time.sleep(self.delay_s)
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of everything."""
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        for each in self._sockets:
            each.close()
