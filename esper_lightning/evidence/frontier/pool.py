"""Runs of ``train.py``, several at a time, each after those that it needs."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from esper_lightning.evidence.frontier.process import LOG_NAME, RunProcess, imported

TRIES = 3
"""Of a run whose process is lost: killed by a person, or for memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run.

    Attributes:
        name: for messages.
        needs: names of runs that come first.
        folder: its output directory.
        overrides: of ``train.py``, asked for when its turn has come.
        finish: called with them when it is done.
        fail: called with why it failed.
    """

    name: str
    needs: Sequence[str]
    folder: Path
    overrides: Callable[[], Sequence[str]]
    finish: Callable[[Sequence[str]], None] | None = None
    fail: Callable[[str], None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Begun:
    run: Run
    overrides: Sequence[str]
    tries: int = 1


def run_all(
    runs: Sequence[Run],
    *,
    train: Path,
    jobs: int,
    tell: Callable[[str], None],
    limit_s: float | None = None,
) -> list[str]:
    """Carry out all runs, each after those that it needs.

    A run whose process is lost is begun again. One that fails by itself or takes too long is not:
    it leaves out those that need it, and no others.

    Args:
        runs: in the order in which they are preferred.
        train: path of ``train.py``.
        jobs: runs at a time.
        tell: takes a line for each run.
        limit_s: seconds that a run may take; None for any.

    Returns:
        What failed, in words.
    """
    failures: list[str] = []
    failed: set[str] = set()
    waiting = {run.name: run for run in runs}
    done = 0

    def fail(run: Run, why: str) -> None:
        failed.add(run.name)
        failures.append(f"{run.name}: {why}")
        if run.fail is not None:
            run.fail(why)

    with imported(train), _Underway(train, tell=tell, limit_s=limit_s) as underway:
        while waiting or underway.names:
            busy = waiting.keys() | underway.names | failed
            for run in _ready(waiting.values(), busy)[: jobs - len(underway.names)]:
                underway.begin(waiting.pop(run.name))
            for run in [run for run in waiting.values() if failed.intersection(run.needs)]:
                fail(waiting.pop(run.name), "left out, because what it needs failed")
            for run, overrides, why in underway.over():
                done += 1
                if why:
                    fail(run, why)
                    tell(f"{done} of {len(runs)}: {run.name} failed, see {run.folder / LOG_NAME}")
                    continue
                if run.finish is not None:
                    run.finish(overrides)
                tell(f"{done} of {len(runs)}: {run.name}")
    return failures


def _ready(waiting: Iterable[Run], busy: Container[str]) -> list[Run]:
    return [run for run in waiting if not any(name in busy for name in run.needs)]


class _Underway:
    """Runs that have begun; on leaving the ``with`` they are ended."""

    def __init__(self, train: Path, *, tell: Callable[[str], None], limit_s: float | None) -> None:
        self._train, self._tell, self._limit_s = train, tell, limit_s
        self._begun: dict[RunProcess, _Begun] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._begun:
            process.end()

    @property
    def names(self) -> set[str]:
        return {begun.run.name for begun in self._begun.values()}

    def begin(self, run: Run) -> None:
        self._start(_Begun(run=run, overrides=run.overrides()))

    def over(self) -> list[tuple[Run, Sequence[str], str]]:
        """Wait until one is over, if any has begun.

        Returns:
            Those that are, with their overrides, and why they failed: nothing where they did not.
        """
        if not self._begun:
            return []
        RunProcess.wait(self._begun)
        found = []
        for process in [process for process in self._begun if process.is_over]:
            begun = self._begun.pop(process)
            is_lost, why = process.end()
            if is_lost and begun.tries < TRIES:
                self._tell(f"{begun.run.name}: {why}; it is begun again")
                self._start(replace(begun, tries=begun.tries + 1))
            else:
                found.append((begun.run, begun.overrides, why))
        return found

    def _start(self, begun: _Begun) -> None:
        process = RunProcess(self._train, begun.run.folder, begun.overrides, limit_s=self._limit_s)
        self._begun[process] = begun
