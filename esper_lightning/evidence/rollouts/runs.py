"""Carries out runs of ``train.py`` beside their twins, each once.

A run has a folder that is named by all that it depends on, so that what was done before, or before
an interruption, is not done again. Twins, in which nothing grows, are shared by all runs of the
same task and seed.
"""

import hashlib
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from esper_lightning.evidence.alone import alone_in
from esper_lightning.evidence.rollouts.families import training_task
from esper_lightning.evidence.rollouts.shares import Machines, carried_out, here, is_done
from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.nissa.versions import versions
from esper_lightning.simic.rollouts import Assignment, Pair, Rollouts

log = logging.getLogger(__name__)

NEVER = ("tamiyo=never",)
"""Who decides in a twin."""


class Runs:
    """Carries out runs, several at a time, in processes that have imported everything.

    Args:
        folder: of all runs; all machines see it.
        train: path of ``train.py``.
        jobs: runs at a time on a machine, at least 1.
        limit_s: seconds that a run may take, above 0 and finite.
        machines: carries them out elsewhere; None is this machine.
        share: runs that such a machine is given at a time, at least 1.

    Raises:
        InvalidArgument: there is no such file, or a number is not allowed.
    """

    def __init__(
        self,
        *,
        folder: Path | str,
        train: Path | str = "train.py",
        jobs: int = 2,
        limit_s: float = 600.0,
        machines: Machines | None = None,
        share: int = 16,
    ) -> None:
        check_whole("jobs", jobs, least=1)
        check_whole("share", share, least=1)
        check_number("limit_s", limit_s)
        if not 0 < limit_s < math.inf:
            raise InvalidArgument(f"limit_s must be above 0 and finite, got {limit_s}")
        self._train = Path(train).resolve()
        if not self._train.is_file():
            raise InvalidArgument(
                f"{self._train} is not there; runs are those of the repository's train.py, name it"
            )
        self._folder = Path(folder).resolve()
        self._jobs = jobs
        self._limit_s = limit_s
        self._machines = machines or here
        # On this machine jobs would wait, between two shares, for the last run of the first.
        self._size = share if machines is not None else sys.maxsize
        self._versions = versions()

    def __call__(self, assignments: Sequence[Assignment]) -> list[Pair | None]:
        """Carry out what was not carried out before; None for a run that failed, or its twin.

        Raises:
            OtherVersions: a machine would come to other numbers.
            FolderInUse: another process is at it.
        """
        pairs = [self._pair(each) for each in assignments]
        wanted = {
            folder: options
            for each, pair in zip(assignments, pairs, strict=True)
            for folder, options in (
                (pair.twin, self._options(each, NEVER)),
                (pair.run, self._options(each, each.deciding)),
            )
        }
        with alone_in(self._folder):
            failures = carried_out(
                wanted,
                self._machines,
                train=self._train,
                jobs=self._jobs,
                limit_s=self._limit_s,
                size=self._size,
            )
        for folder, why in failures.items():
            log.warning("a run failed: %s: %s", folder.name, why)
        return [pair if is_done(pair.run) and is_done(pair.twin) else None for pair in pairs]

    def _pair(self, assignment: Assignment) -> Pair:
        return Pair(
            run=self._place(self._options(assignment, assignment.deciding)),
            twin=self._place(self._options(assignment, NEVER)),
        )

    @staticmethod
    def _options(assignment: Assignment, deciding: Sequence[str]) -> tuple[str, ...]:
        return (*assignment.task.options, *deciding, f"seed={assignment.seed}")

    def _place(self, options: Sequence[str]) -> Path:
        there = (f"{name} {version}" for name, version in sorted(self._versions.items()))
        told = "\n".join([*there, *options])
        return self._folder / hashlib.sha256(told.encode()).hexdigest()[:20]


def on_training_tasks(
    *,
    folder: Path | str,
    train: Path | str = "train.py",
    jobs: int = 2,
    machines: Machines | None = None,
    num: int = 64,
    per_task: int = 4,
    seed: int = 0,
) -> Rollouts:
    """Rollouts on :func:`training_task`, for ``experiment=simic``; arguments as of the classes."""
    place = Path(folder)
    return Rollouts(
        tasks=training_task,
        carry_out=Runs(folder=place / "runs", train=train, jobs=jobs, machines=machines),
        folder=place / "policies",
        num=num,
        per_task=per_task,
        seed=seed,
    )
