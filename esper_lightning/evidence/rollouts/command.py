"""``python -m esper_lightning.evidence policies``: who decides best on held-out tasks."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from esper_lightning.evidence.report import write
from esper_lightning.evidence.rollouts.contest import contest, halved, render, results
from esper_lightning.evidence.rollouts.ray_tasks import RayTasks
from esper_lightning.evidence.rollouts.runs import Runs
from esper_lightning.tamiyo.learned.stored import CLONED, DEFAULT


def main(arguments: Sequence[str]) -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence policies")
    parser.add_argument(
        "policies",
        nargs="*",
        type=_named,
        metavar="NAME=FILE",
        help="learned policies beside those that come with the package",
    )
    parser.add_argument("--tasks", type=int, default=8, help="that are held out (8)")
    parser.add_argument("--seeds", type=int, default=10, help="of each (10)")
    parser.add_argument(
        "--other-seeds", type=int, default=3, help="by which schedules are chosen (3)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time on a machine (2)")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster that carries out runs")
    parser.add_argument("--train", type=Path, default=Path("train.py"), help="path of train.py")
    parser.add_argument("--folder", type=Path, default=Path("outputs/policies"), help="of all runs")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/policies.json"))
    options = parser.parse_args(arguments)
    policies = {"learned": DEFAULT, "cloned": CLONED, **dict(options.policies)}
    machines = None if options.ray is None else RayTasks(address=options.ray)
    found = contest(
        Runs(folder=options.folder, train=options.train, jobs=options.jobs, machines=machines),
        policies,
        num_tasks=options.tasks,
        num_seeds=options.seeds,
        num_other_seeds=options.other_seeds,
        tell=print,
    )
    told = results(found)
    write(options.out, " ".join(["policies", *arguments]), {"results": told, "runs": found})
    print(f"\n{render(told)}\n")
    for name in policies:
        print(f"half of the heuristic's regret less that of {name}: {halved(found, name)}")


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE of a policy that is there")
    return name, Path(path).resolve()
