"""Compiles recipes in child processes, and keeps what was decided in the library."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import torch

from esper_lightning.leyline import DecodeError, EsperError, InvalidArgument, decode, encode
from esper_lightning.tezzeret.bundle import CACHE_VARIABLE, CODE, LIBRARIES, is_supported
from esper_lightning.tezzeret.examine import Examination
from esper_lightning.tezzeret.journal import MAX_TRIES, Journal, Line
from esper_lightning.tezzeret.outcome import KIND, Outcome, of_artifact
from esper_lightning.tezzeret.recipe import Recipe, key, this_machine
from esper_lightning.urza import BadSignature, Library, LibraryReadOnly

log = logging.getLogger(__name__)

MIN_SPEEDUP = 1.05
"""Compiled code that is not so many times as fast as eager is not kept."""

RECIPE, EXAMINATION, CACHE = "recipe.json", "examination.json", "cache"
"""What lies in the folder of a child."""

CHANGED = 75
"""Status of a child for which the source of the branch is no longer what it was for its parent."""

_LEFT = {"make": (CODE, LIBRARIES), "examine": (EXAMINATION,)}
_POLL_S = 0.1


class NotMade(EsperError):
    """Nothing was decided about a recipe, which can be asked for again."""


class _Failed(EsperError):
    """A child did not do its work."""


class Workshop:
    """Turns recipes into outcomes, each in a child process with a time limit.

    Nothing here runs in a training step: children compile, threads of this process wait for them.

    Args:
        library: where outcomes are kept.
        limit: children at a time.
        timeout: seconds that a child may take for each of its two steps.
        min_speedup: over eager, below which the outcome is eager.

    Attributes:
        retries: compilations that were tried once more, after one that failed.

    Raises:
        InvalidArgument: a value that is not allowed.
        LibraryReadOnly: outcomes could not be kept.
    """

    def __init__(
        self,
        library: Library,
        *,
        limit: int = 1,
        timeout: float = 180.0,
        min_speedup: float = MIN_SPEEDUP,
    ) -> None:
        if limit < 1:
            raise InvalidArgument(f"limit is a number of processes, at least 1, got {limit}")
        if not timeout > 0:
            raise InvalidArgument(f"timeout is in seconds, more than 0, got {timeout}")
        if library.read_only:
            raise LibraryReadOnly(
                f"{library.root} can only be read, so that no outcome could be kept in it; name "
                f"another folder"
            )
        self.library = library
        self.timeout = timeout
        self.min_speedup = min_speedup
        self.retries = 0
        self._folder = library.root / "tezzeret"
        self._journal = Journal(self._folder / "journal.jsonl")
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix="tezzeret")
        self._children: set[int] = set()
        self._guard = threading.Lock()
        self._closed = False
        self._submitted: dict[str, Future[Outcome]] = {}

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- many -------------------------------------------------------------------------------------

    def submit(self, asked: Recipe, *, again: bool = False) -> Future[Outcome]:
        """Have a recipe made in the background; what was asked for already is not made twice.

        Raises:
            NotMade: the workshop was closed.
        """
        name = key(asked, this_machine(asked.device))
        with self._guard:
            if self._closed:
                raise NotMade("the workshop is closed")
            known = self._submitted.get(name)
            if known is None or (known.done() and known.exception() is not None):
                known = self._submitted[name] = self._pool.submit(self.make, asked, again=again)
            return known

    def make_all(
        self,
        recipes: Iterable[Recipe],
        *,
        done: Callable[[Recipe, Outcome], None],
        again: bool = False,
    ) -> None:
        """Make every recipe, and report each when it is done."""
        pending = {self.submit(asked, again=again): asked for asked in recipes}
        for future in as_completed(pending):
            done(pending[future], future.result())

    def close(self) -> None:
        """End every child; what was being made is begun anew another time."""
        with self._guard:
            self._closed = True
            children = list(self._children)
        for child in children:
            _kill(child)
        self._pool.shutdown(wait=True, cancel_futures=True)

    # -- one --------------------------------------------------------------------------------------

    def make(self, asked: Recipe, *, again: bool = False) -> Outcome:
        """The outcome of a recipe: the one that is kept, or a new one.

        A recipe that fails is tried once more; after that it is eager, and the reason is kept.

        Args:
            asked: what to compile.
            again: make a new version, whatever is kept.

        Raises:
            LibraryError: the outcome cannot be kept.
            NotMade: the workshop was closed, or the source of the branch was changed.
            OSError: there is no room for temporary files.
        """
        machine = this_machine(asked.device)
        name = key(asked, machine)
        with self._alone(name):
            kept = None if again else self._kept(asked, name)
            if kept is not None:
                return kept
            began = time.monotonic()
            failures = [] if again else self._journal.failures(name)
            parts: dict[str, bytes] = {}
            examined = None
            if not is_supported():
                failures = [f"torch {torch.__version__} cannot save compiled code"] * MAX_TRIES
            while examined is None and len(failures) < MAX_TRIES:
                if failures:
                    with self._guard:
                        self.retries += 1
                self._journal.write(Line(key=name, event="begun", recipe=str(asked)))
                try:
                    examined, parts = self._try(asked, name)
                except _Failed as error:
                    failures.append(str(error))
                    self._journal.write(Line(key=name, event="failed", reason=str(error)))
                except (NotMade, OSError):
                    self._journal.write(Line(key=name, event="ended"))
                    raise
                else:
                    self._journal.write(Line(key=name, event="ended"))
            outcome = self._judge(examined, failures, seconds=time.monotonic() - began)
            self.library.put(
                KIND,
                name,
                parts if outcome.is_compiled else {},
                about={
                    **msgspec.to_builtins(outcome),
                    "recipe": msgspec.to_builtins(asked),
                    "machine": msgspec.to_builtins(machine),
                },
            )
            self._journal.write(Line(key=name, event="decided", reason=outcome.reason))
            return outcome

    def _kept(self, asked: Recipe, name: str) -> Outcome | None:
        try:
            kept = self.library.get(KIND, name)
            return None if kept is None else of_artifact(kept)
        except (BadSignature, msgspec.ValidationError) as error:  # a new version takes its place
            log.warning("%s is made anew: %s", asked, error)
            return None

    def _judge(
        self, examined: Examination | None, failures: list[str], *, seconds: float
    ) -> Outcome:
        if examined is None:
            return Outcome(is_compiled=False, reason=f"it failed: {failures[-1]}", seconds=seconds)
        if examined.wrong:
            return Outcome(
                is_compiled=False,
                reason=f"wrong: {examined.wrong}",
                seconds=seconds,
                errors=examined.errors,
            )
        is_compiled = examined.speedup >= self.min_speedup
        told = f"{examined.speedup:.2f} times as fast as eager"
        return Outcome(
            is_compiled=is_compiled,
            reason=told if is_compiled else f"{told}, {self.min_speedup} is asked",
            seconds=seconds,
            speedup=examined.speedup,
            eager_ms=examined.eager_ms,
            compiled_ms=examined.compiled_ms,
            errors=examined.errors,
        )

    def _try(self, asked: Recipe, name: str) -> tuple[Examination, dict[str, bytes]]:
        with TemporaryDirectory(prefix="tezzeret-", ignore_cleanup_errors=True) as made:
            folder = Path(made)
            (folder / CACHE).mkdir()
            (folder / RECIPE).write_bytes(encode(asked))
            parts = dict(zip((CODE, LIBRARIES), self._run("make", folder, name), strict=True))
            (told,) = self._run("examine", folder, name)
            try:
                examined: Examination = decode(told, Examination, what="examination")
            except DecodeError as error:
                raise _Failed(str(error)) from error
            return examined, parts

    def _run(self, step: str, folder: Path, name: str) -> list[bytes]:
        """Let a child do one of its steps; returns what it leaves."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            CACHE_VARIABLE: str(folder / CACHE),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        command = [sys.executable, "-m", "esper_lightning.tezzeret.child", step, str(folder), name]
        with (folder / f"{step}.log").open("wb") as told:
            child = self._start(command, environment, told)
            try:
                status = child.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise _Failed(f"{step} took more than {self.timeout:g} s") from None
            finally:
                _kill(child.pid)
                child.wait()
                assert child.stdin is not None
                child.stdin.close()
                with self._guard:
                    self._children.discard(child.pid)
        if self._closed:
            raise NotMade("the workshop was closed before it was done")
        if status == CHANGED:
            raise NotMade("the source of the branch has changed since this process read it")
        left = [folder / part for part in _LEFT[step]]
        if status != 0 or not all(part.is_file() for part in left):
            ended = f"signal {-status}" if status < 0 else f"status {status}"
            lines = (folder / f"{step}.log").read_text(errors="replace").splitlines()
            raise _Failed(f"{step} ended with {ended}: {_reason(lines)}")
        return [part.read_bytes() for part in left]

    def _start(
        self, command: list[str], environment: dict[str, str], told: Any
    ) -> subprocess.Popen[bytes]:
        with self._guard:
            if self._closed:
                raise NotMade("the workshop is closed")
            child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,  # its end tells the child that this process died
                stdout=told,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._children.add(child.pid)
        return child

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """No other process makes the same meanwhile; it waits, and finds what was made."""
        locks = self._folder / "locks"
        locks.mkdir(exist_ok=True)
        with (locks / name[:2]).open("ab") as lock:
            while not _locked(lock.fileno()):
                if self._closed:
                    raise NotMade("the workshop was closed while another process made the same")
                time.sleep(_POLL_S)
            yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _reason(lines: list[str]) -> str:
    """The line of a log that says why: of a traceback the error, else the last one."""
    begins = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
    behind = lines[begins[-1] + 1 :] if begins else []
    errors = [line for line in behind if line[:1].strip()]
    told = errors[:1] or [line for line in lines if line.strip()][-1:] or ["silently"]
    return told[0][:500]


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended
        os.killpg(group, signal.SIGKILL)
