"""``python -m esper_lightning.evidence frontier``."""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from esper_lightning.evidence.alone import alone_in
from esper_lightning.evidence.frontier import rows
from esper_lightning.evidence.frontier.arms import ARMS, Done, with_needs
from esper_lightning.evidence.frontier.elsewhere import run_all_by
from esper_lightning.evidence.frontier.figures import save_figures
from esper_lightning.evidence.frontier.outcomes import outcomes
from esper_lightning.evidence.frontier.pool import Run, run_all
from esper_lightning.evidence.frontier.rows import Row
from esper_lightning.evidence.frontier.tables import report
from esper_lightning.evidence.frontier.tasks import TASKS, Task
from esper_lightning.evidence.rollouts.ray_tasks import RayTasks

ROWS_NAME = "rows.jsonl"
REPORT_NAME = "report.md"
QUIET = (
    "callbacks.live_table=null",
    "callbacks.growth_figure=null",
    "callbacks.model_summary=null",
)
QUICK_EPOCHS = 8


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, then write tables and figures of all that is there."""
    options = _options(arguments)
    path = options.directory / ROWS_NAME
    kept = {row.key: row for row in rows.read(path)}
    failures: list[str] = []
    if not options.report_only:
        runs = _runs(options, kept, path)
        print(f"{len(runs)} runs to do, {len(kept)} are there", flush=True)
        tell = partial(print, flush=True)
        carry_out = run_all
        if options.ray is not None:
            carry_out = partial(run_all_by, RayTasks(address=options.ray))
        with alone_in(options.directory):
            failures = carry_out(runs, train=options.train, jobs=options.jobs, tell=tell)
    if kept:
        found = list(kept.values())
        text = report(
            found, "python -m esper_lightning.evidence " + shlex.join(["frontier", *arguments])
        )
        (options.directory / REPORT_NAME).write_text(text)
        by_task = {task: outcomes(found, task) for task in TASKS}
        save_figures({task: told for task, told in by_task.items() if told}, options.directory)
        print(text)
    if failures:
        sys.exit("\n".join(["runs failed:", *failures]))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.evidence frontier",
        description="Growth against static networks, on matched runs. Interrupt it at any time: "
        "what is finished is kept, and the same command goes on.",
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=_seeds, nargs="+", default=[range(5)], metavar="A-B")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time on a machine")
    parser.add_argument("--train", type=Path, default=Path("train.py"), help="path of train.py")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster that carries out runs")
    parser.add_argument("--directory", type=Path, default=Path("outputs/frontier"))
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"digits for {QUICK_EPOCHS} epochs: shows that everything works, and nothing else",
    )
    options = parser.parse_args(arguments)
    if not options.train.is_file():
        parser.error(f"{options.train} is not there; run from the repository or give --train")
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    options.directory = options.directory.resolve()
    options.seeds = sorted({seed for several in options.seeds for seed in several})
    if options.quick:
        options.tasks = ["digits"]
    return options


def _seeds(text: str) -> range:
    """``3`` or ``0-9``, both ends included."""
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 3 nor 0-9") from None
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} has no seed; write the smaller one first")
    return found


def _runs(
    options: argparse.Namespace, kept: dict[tuple[str, str, int], Row], path: Path
) -> list[Run]:
    """What is not there yet, seed by seed, so that an interruption leaves whole comparisons."""
    commit = rows.commit_of(options.train.parent)
    arms = with_needs(options.arms)
    return [
        _run(
            _sized(TASKS[task], options),
            arm,
            seed,
            options=options,
            kept=kept,
            path=path,
            commit=commit,
        )
        for seed in options.seeds
        for task in options.tasks
        for arm in arms
        if (task, arm, seed) not in kept
    ]


def _sized(task: Task, options: argparse.Namespace) -> Task:
    return dataclasses.replace(task, epochs=QUICK_EPOCHS) if options.quick else task


def _run(
    task: Task,
    arm: str,
    seed: int,
    *,
    options: argparse.Namespace,
    kept: dict[tuple[str, str, int], Row],
    path: Path,
    commit: str,
) -> Run:
    def folder(name: str) -> Path:
        found: Path = options.directory / task.name / name / str(seed)
        return found

    def overrides() -> list[str]:
        known = {name: kept[task.name, name, seed] for name in ARMS[arm].needs}
        return [
            f"seed={seed}",
            *task.overrides,
            task.sized(task.size),
            f"trainer.max_epochs={task.epochs}",
            *ARMS[arm].overrides(Done(task=task, rows=known, folder=folder)),
            *options.overrides,
        ]

    def finish(used: Sequence[str]) -> None:
        here = str(options.directory)
        told = [override.replace(here, ".") for override in used]  # rows may be moved
        row = rows.read_run(
            folder(arm), task=task.name, arm=arm, seed=seed, overrides=told, commit=commit
        )
        rows.append(path, row)
        kept[row.key] = row

    return Run(
        name=f"{task.name}/{arm}/{seed}",
        needs=[f"{task.name}/{name}/{seed}" for name in ARMS[arm].needs],
        folder=folder(arm),
        overrides=lambda: [*QUIET, *_once(overrides())],
        finish=finish,
    )


def _once(overrides: Sequence[str]) -> list[str]:
    """The last override of each key: Hydra takes none twice."""
    latest = {override.lstrip("+").partition("=")[0]: override for override in overrides}
    return list(latest.values())
