"""``python -m esper_lightning.evidence frontier``."""

import argparse
import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from esper_lightning.evidence.alone import alone_in
from esper_lightning.evidence.frontier.arms import ARMS, with_needs
from esper_lightning.evidence.frontier.elsewhere import run_all_by
from esper_lightning.evidence.frontier.figures import save_figures
from esper_lightning.evidence.frontier.matched import Matched
from esper_lightning.evidence.frontier.outcomes import outcomes
from esper_lightning.evidence.frontier.pool import run_all
from esper_lightning.evidence.frontier.rows import commit_of
from esper_lightning.evidence.frontier.tables import report
from esper_lightning.evidence.frontier.tasks import LIMITS, TASKS, Task
from esper_lightning.evidence.rollouts.ray_tasks import RayTasks
from esper_lightning.leyline import InvalidArgument

REPORT_NAME = "report.md"
QUICK_EPOCHS = 8


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, then write tables and figures of all that is there."""
    options = _options(arguments)
    matched = Matched(
        folder=options.directory,
        arms=ARMS,
        commit=commit_of(options.train.parent),
        overrides=options.overrides,
    )
    failures: list[str] = []
    if not options.report_only:
        tasks = [_with_budget(TASKS[task], options) for task in options.tasks]
        try:
            runs = matched.missing(tasks, with_needs(options.arms), options.seeds)
        except InvalidArgument as error:
            sys.exit(str(error))
        print(f"{len(runs)} runs to do, {len(matched.kept)} are there", flush=True)
        tell = partial(print, flush=True)
        carry_out = run_all
        if options.ray is not None:
            carry_out = partial(run_all_by, RayTasks(address=options.ray))
        with alone_in(options.directory):
            failures = carry_out(runs, train=options.train, jobs=options.jobs, tell=tell)
    if matched.kept:
        found = list(matched.kept.values())
        text = report(
            found, "python -m esper_lightning.evidence " + shlex.join(["frontier", *arguments])
        )
        (options.directory / REPORT_NAME).write_text(text)
        by_task = {task: told for task in TASKS if (told := outcomes(found, task))}
        if by_task:  # parts of an unfinished search are in no figure
            save_figures(by_task, options.directory)
        print(text)
    if failures:
        sys.exit("\n".join(["runs failed:", *failures]))


def _with_budget(task: Task, options: argparse.Namespace) -> Task:
    asked = {"epochs": options.epochs, "growth": options.growth}
    return dataclasses.replace(task, **{k: v for k, v in asked.items() if v is not None})


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.evidence frontier",
        description="Growth against static networks, on matched runs. Interrupt it at any time: "
        "what is finished is kept, and the same command goes on.",
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=seeds_of, nargs="+", default=[range(5)], metavar="A-B")
    parser.add_argument("--epochs", type=int, help="of growing, instead of those of the task")
    parser.add_argument(
        "--growth", type=float, help="that it may add, over the host; default: that of the tasks"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time on a machine")
    parser.add_argument("--train", type=Path, default=Path("train.py"), help="path of train.py")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster that carries out runs")
    parser.add_argument(
        "--directory", type=Path, help="default: outputs/frontier, or a folder for this budget"
    )
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"digits for {QUICK_EPOCHS} epochs: shows that everything works, and nothing else",
    )
    options = parser.parse_args(overrides_apart(arguments))
    if not options.train.is_file():
        parser.error(f"{options.train} is not there; run from the repository or give --train")
    for name in ("jobs", "epochs"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.growth is not None and not (math.isfinite(options.growth) and options.growth > 0):
        parser.error(f"--growth must be finite and above 0, got {options.growth}")
    changed = [override.lstrip("+") for override in options.overrides]
    if any(each.startswith("trainer.max_") for each in changed):
        parser.error("how long an arm trains follows from its kind; give --epochs of growing")
    if any(each.startswith(LIMITS) for each in changed):
        parser.error("what growing may add is the same in all arms; give --growth")
    options.seeds = sorted({seed for several in options.seeds for seed in several})
    if options.quick:
        options.tasks, options.epochs = ["digits"], options.epochs or QUICK_EPOCHS
    if options.directory is None:
        epochs = "" if options.epochs is None else f"_{options.epochs}"
        growth = "" if options.growth is None else f"_growth_{options.growth:g}"
        options.directory = Path(f"outputs/frontier{epochs}{growth}")
    options.directory = options.directory.resolve()
    return options


def overrides_apart(arguments: Sequence[str]) -> list[str]:
    """Arguments with ``--`` before the overrides that end them, or ``--arms`` would take those.

    >>> overrides_apart(["--arms", "grown", "data.batch_size=32", "++trainer.limit_test_batches=1"])
    ['--arms', 'grown', '--', 'data.batch_size=32', '++trainer.limit_test_batches=1']
    """
    options = list(arguments)
    overrides: list[str] = []
    while options and "=" in options[-1] and not options[-1].startswith("-"):
        overrides.insert(0, options.pop())
    return [*options, "--", *overrides] if overrides and "--" not in options else list(arguments)


def seeds_of(text: str) -> range:
    """``3`` or ``0-9``, both ends included."""
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 3 nor 0-9") from None
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} has no seed; write the smaller one first")
    return found
