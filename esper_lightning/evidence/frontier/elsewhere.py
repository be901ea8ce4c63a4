"""Runs of the benchmark on other machines, in waves."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from esper_lightning.evidence.frontier.pool import Run
from esper_lightning.evidence.frontier.process import LOG_NAME
from esper_lightning.evidence.rollouts.shares import Machines, carried_out

WAVE = 64
"""Runs that are waited for together: what an interruption loses, at most."""


def run_all_by(
    machines: Machines, runs: Sequence[Run], *, train: Path, jobs: int, tell: Callable[[str], None]
) -> list[str]:
    """Carry out all runs, each after those that it needs.

    A wave is what is ready, a share what one machine does at a time. A run that is lost is begun
    again; one that fails leaves out those that need it, and no others.

    Args:
        machines: that carry them out.
        runs: in the order in which they are preferred.
        train: path of ``train.py``.
        jobs: runs at a time on one machine.
        tell: takes a line for each run.

    Returns:
        What failed, in words.
    """
    failures: dict[str, str] = {}
    waiting = {run.name: run for run in runs}
    done = 0

    def fail(run: Run, why: str) -> None:
        failures[run.name] = why
        if run.fail is not None:
            run.fail(why)

    while waiting:
        for run in [run for run in waiting.values() if failures.keys() & run.needs]:
            fail(waiting.pop(run.name), "left out, because what it needs failed")
        to_come = waiting.keys() | failures.keys()
        ready = [run for run in waiting.values() if not to_come & set(run.needs)][:WAVE]
        wave = [(waiting.pop(run.name), run.overrides()) for run in ready]
        for run, _ in wave:
            if run.folder.exists():
                shutil.rmtree(run.folder)  # of an interrupted benchmark, with other overrides
        failed = carried_out(
            {run.folder: tuple(overrides) for run, overrides in wave},
            machines,
            train=train.resolve(),  # tasks have folders of their own
            jobs=jobs,
            limit_s=None,
            size=jobs,
        )
        for run, overrides in wave:
            done += 1
            if run.folder in failed:
                fail(run, failed[run.folder])
                tell(f"{done} of {len(runs)}: {run.name} failed, see {run.folder / LOG_NAME}")
                continue
            if run.finish is not None:
                run.finish(overrides)
            tell(f"{done} of {len(runs)}: {run.name}")
    return [f"{name}: {why}" for name, why in failures.items()]
