"""One run of ``train.py`` in a process of its own, which has imported everything.

A server process imports torch, Lightning and ``train.py`` once and does nothing else; each run is a
fork of it. A run is then what ``python train.py`` with the same overrides is, without the seconds
that importing takes.
"""

import importlib
import multiprocessing
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

LOG_NAME = "output.log"

USED_LATER = ("sklearn.datasets",)
"""What ``train.py`` imports only where it is needed, and which takes as long as a short run."""

MOST_WORDS = 10_000
"""Characters of why a run failed; they must fit into a pipe, which is read when the run is over."""

_CONTEXT = multiprocessing.get_context("forkserver")


class RunProcess:
    """A run that has begun.

    Args:
        train: path of ``train.py``.
        folder: its output directory, which is made anew.
        overrides: of ``train.py``.
        limit_s: seconds that it may take; None for any.
    """

    def __init__(
        self, train: Path, folder: Path, overrides: Sequence[str], *, limit_s: float | None = None
    ) -> None:
        self._limit_s = limit_s
        self._until = None if limit_s is None else time.monotonic() + limit_s
        self._words, words = _CONTEXT.Pipe(duplex=False)
        arguments = (words, train.stem, folder, tuple(overrides))
        self._process = _CONTEXT.Process(target=_carry_out, args=arguments)
        self._process.start()
        words.close()

    @property
    def is_over(self) -> bool:
        """Whether it ended, or may go on no longer."""
        return not self._process.is_alive() or self._is_late

    def end(self) -> tuple[bool, str]:
        """End it, if it did not end.

        Returns:
            Whether its process was lost before the run came to an end of its own, and why the run
            failed: nothing where it did not.
        """
        late = self._process.is_alive() and self._is_late
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        code = self._process.exitcode
        words = self._said()
        self._words.close()
        self._process.close()
        if late:
            return False, f"took longer than {self._limit_s:g} s"
        if code == 0 or words:
            return False, words
        return True, f"its process ended with {code}"

    @property
    def _is_late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _said(self) -> str:
        try:
            return str(self._words.recv()) if self._words.poll() else ""
        except EOFError:  # without a word
            return ""

    @staticmethod
    def wait(some: Iterable["RunProcess"]) -> None:
        """Until one of them is over."""
        found = list(some)
        ends = [each._until for each in found if each._until is not None]
        timeout = max(0.0, min(ends) - time.monotonic()) if ends else None
        connection.wait([each._process.sentinel for each in found], timeout)


@contextmanager
def imported(train: Path) -> Iterator[None]:
    """Where runs can begin: the server is there, and stays.

    Args:
        train: path of ``train.py``.
    """
    folder = str(train.parent.resolve())
    _CONTEXT.set_forkserver_preload(["__main__", train.stem, *USED_LATER, __name__])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *([before] if before else [])])
    sys.path.insert(0, folder)
    try:
        forkserver.ensure_running()
        yield
    finally:
        sys.path.remove(folder)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _carry_out(
    words: connection.Connection, module: str, folder: Path, overrides: Sequence[str]
) -> None:
    """In the process: what ``python train.py`` does, in a fresh folder."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main: Any = importlib.import_module(module).main  # is imported already, by the server
    if folder.exists():
        shutil.rmtree(folder)  # what an interrupted run left behind
    folder.mkdir(parents=True)
    with (folder / LOG_NAME).open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["train.py", f"hydra.run.dir='{folder}'", *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except (Exception, SystemExit) as error:  # pylint: disable=broad-exception-caught
        traceback.print_exc()  # into the log; the other process is told in a line
        words.send(f"{type(error).__name__}: {error}"[:MOST_WORDS])
        sys.exit(1)


def _end_with_parent() -> None:
    """What started the run may be killed; nobody else would end it, and it may be begun anew."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
