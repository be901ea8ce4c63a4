"""Runs of ``train.py``, several at a time, each in a fresh process that has imported everything.

A server process imports torch, Lightning and ``train.py`` once and does nothing else; each run is a
fork of it. A run is then what ``python train.py`` with the same overrides is, without the seconds
that importing takes.
"""

import importlib
import multiprocessing
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper_lightning.leyline import EsperError

LOG_NAME = "output.log"

USED_LATER = ("sklearn.datasets",)
"""What ``train.py`` imports only where it is needed, and which takes as long as a short run."""


class RunFailed(EsperError):
    """A run of ``train.py`` that did not end well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run.

    Attributes:
        name: for messages.
        needs: names of runs that come first.
        folder: its output directory.
        overrides: of ``train.py``, asked for when its turn has come.
        finish: called when it is done.
    """

    name: str
    needs: Sequence[str]
    folder: Path
    overrides: Callable[[], Sequence[str]]
    finish: Callable[[Sequence[str]], None]


def run_all(
    runs: Sequence[Run], *, train: Path, jobs: int, tell: Callable[[str], None]
) -> list[str]:
    """Carry out all runs, each after those that it needs.

    A run that fails leaves out those that need it, and no others.

    Args:
        runs: in the order in which they are preferred.
        train: path of ``train.py``.
        jobs: runs at a time.
        tell: takes a line for each run.

    Returns:
        What failed, in words.
    """
    failures: list[str] = []
    waiting = {run.name: run for run in runs}
    running: dict[Future[None], tuple[Run, Sequence[str]]] = {}
    lost: set[str] = set()
    done = 0
    with _processes(train, jobs) as pool:
        while waiting or running:
            for run in _ready(waiting, running, lost, room=jobs - len(running)):
                del waiting[run.name]
                overrides = run.overrides()
                running[pool.submit(_train, train.stem, run.folder, tuple(overrides))] = (
                    run,
                    overrides,
                )
            for run in [run for run in waiting.values() if lost.intersection(run.needs)]:
                del waiting[run.name]
                lost.add(run.name)
                failures.append(f"{run.name}: left out, because what it needs failed")
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run, overrides = running.pop(future)
                done += 1
                error = future.exception()
                if error is None:
                    run.finish(overrides)
                    tell(f"{done} of {len(runs)}: {run.name}")
                else:
                    lost.add(run.name)
                    failures.append(f"{run.name}: {error}")
                    tell(f"{done} of {len(runs)}: {run.name} failed, see {run.folder / LOG_NAME}")
    return failures


def _ready(
    waiting: dict[str, Run],
    running: dict[Future[None], tuple[Run, Sequence[str]]],
    lost: set[str],
    *,
    room: int,
) -> list[Run]:
    busy = {run.name for run, _ in running.values()} | waiting.keys() | lost
    return [run for run in waiting.values() if not busy.intersection(run.needs)][:room]


@contextmanager
def _processes(train: Path, jobs: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([train.stem, *USED_LATER])
    sys.path.insert(0, str(train.parent.resolve()))
    try:
        with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
            yield pool
    finally:
        sys.path.pop(0)


def _train(module: str, folder: Path, overrides: Sequence[str]) -> None:
    """In a process of its own: what ``python train.py`` does, in a fresh folder."""
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
        raise RunFailed(f"{type(error).__name__}: {error}") from None
