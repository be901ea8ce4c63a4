"""Carries out runs of ``train.py`` beside their twins, each once.

A run has a folder that is named by all that it depends on, so that what was done before, or before
an interruption, is not done again. Twins, in which nothing grows, are shared by all runs of the
same task and seed.
"""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from esper_lightning.evidence.frontier.pool import Run, run_all
from esper_lightning.evidence.rollouts.families import training_task
from esper_lightning.leyline import DecodeError, InvalidArgument, RunSummary, decode
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.nissa.versions import versions
from esper_lightning.simic.recording import FINISHED, SUMMARY_NAME
from esper_lightning.simic.rollouts import Assignment, Pair, Rollouts

log = logging.getLogger(__name__)

NEVER = ("tamiyo=never",)
"""Who decides in a twin."""

TRIES = 3
"""Of a run whose process was killed."""


class Runs:
    """Carries out runs, several at a time, in processes that have imported everything.

    Args:
        folder: of all runs.
        train: path of ``train.py``.
        jobs: runs at a time, at least 1.

    Raises:
        InvalidArgument: there is no such file, or no job.
    """

    def __init__(
        self, *, folder: Path | str, train: Path | str = "train.py", jobs: int = 2
    ) -> None:
        check_whole("jobs", jobs, least=1)
        self._train = Path(train).resolve()
        if not self._train.is_file():
            raise InvalidArgument(
                f"{self._train} is not there; runs are those of the repository's train.py, name it"
            )
        self._folder = Path(folder).resolve()
        self._jobs = jobs
        self._versions = "\n".join(f"{name} {found}" for name, found in sorted(versions().items()))

    def __call__(self, assignments: Sequence[Assignment]) -> list[Pair | None]:
        """Carry out what was not carried out before; None for a run that failed, or its twin."""
        pairs = [self._pair(each) for each in assignments]
        wanted = {
            folder: options
            for each, pair in zip(assignments, pairs, strict=True)
            for folder, options in (
                (pair.twin, self._options(each, NEVER)),
                (pair.run, self._options(each, each.deciding)),
            )
        }
        for _ in range(TRIES):
            left = {folder: options for folder, options in wanted.items() if not is_done(folder)}
            if not left:
                break
            try:
                self._carry_out(left)
            except BrokenProcessPool as error:
                log.warning("a process of a run was killed, it is run again: %s", error)
            else:
                break
        return [pair if is_done(pair.run) and is_done(pair.twin) else None for pair in pairs]

    def _carry_out(self, wanted: dict[Path, tuple[str, ...]]) -> None:
        killed: list[str] = []
        failures = run_all(
            [
                Run(
                    name=folder.name,
                    needs=(),
                    folder=folder,
                    overrides=partial(tuple, options),
                    finish=_nothing,
                )
                for folder, options in wanted.items()
            ],
            train=self._train,
            jobs=self._jobs,
            tell=log.debug,
        )
        for each in failures:
            log.warning("a run failed: %s", each)
            if "terminated abruptly" in each:
                killed.append(each)
        if killed:
            raise BrokenProcessPool(killed[0])

    def _pair(self, assignment: Assignment) -> Pair:
        return Pair(
            run=self._place(self._options(assignment, assignment.deciding)),
            twin=self._place(self._options(assignment, NEVER)),
        )

    @staticmethod
    def _options(assignment: Assignment, deciding: Sequence[str]) -> tuple[str, ...]:
        return (*assignment.task.options, *deciding, f"seed={assignment.seed}")

    def _place(self, options: Sequence[str]) -> Path:
        told = "\n".join([self._versions, *options])
        return self._folder / hashlib.sha256(told.encode()).hexdigest()[:20]


def _nothing(overrides: Sequence[str]) -> None:
    """A run that is done leaves its record; there is no more to do."""


def is_done(folder: Path) -> bool:
    """Whether a run came to its end there."""
    try:
        found: RunSummary = decode(
            (folder / SUMMARY_NAME).read_bytes(), RunSummary, what=str(folder)
        )
    except (OSError, DecodeError):
        return False
    return found.outcome == FINISHED


def on_training_tasks(
    *,
    folder: Path | str,
    train: Path | str = "train.py",
    jobs: int = 2,
    num: int = 64,
    per_task: int = 4,
    seed: int = 0,
) -> Rollouts:
    """Rollouts on :func:`training_task`, for ``experiment=simic``; arguments as of the classes."""
    place = Path(folder)
    return Rollouts(
        tasks=training_task,
        carry_out=Runs(folder=place / "runs", train=train, jobs=jobs),
        folder=place / "policies",
        num=num,
        per_task=per_task,
        seed=seed,
    )
