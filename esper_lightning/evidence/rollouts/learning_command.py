"""``python -m esper_lightning.evidence learning``: does the policy get better from experience?"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from esper_lightning.evidence.report import table, write
from esper_lightning.evidence.rollouts.contest import (
    contest,
    halved,
    render,
    results,
    together,
)
from esper_lightning.evidence.rollouts.demonstration import (
    CURVES,
    FULL,
    QUICK,
    Demonstration,
    Published,
    Round,
)
from esper_lightning.evidence.rollouts.runs import Runs
from esper_lightning.nissa.figure_style import STYLE
from esper_lightning.tamiyo.learned.stored import CLONED

START, LEARNED = "start", "learned"
"""The policy that training began with, and those that it ended with, together."""


def main(arguments: Sequence[str]) -> None:
    """Train, validate, publish, judge, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence learning")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training (0 1 2)"
    )
    parser.add_argument("--tasks", type=int, default=8, help="that are held out (8)")
    parser.add_argument("--runs", type=int, default=10, help="of each, of every policy (10)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (2)")
    parser.add_argument("--train", type=Path, default=Path("train.py"), help="path of train.py")
    parser.add_argument("--folder", type=Path, default=Path("outputs/learning"), help="of all runs")
    parser.add_argument(
        "--quick", action="store_true", help="one short round, two tasks; minutes, shows nothing"
    )
    asked = parser.parse_args(arguments)
    if asked.quick:
        asked.seeds, asked.tasks, asked.runs = asked.seeds[:1], 2, 2
    demonstration = Demonstration(
        folder=asked.folder, train=asked.train, jobs=asked.jobs, size=QUICK if asked.quick else FULL
    )
    policies = {f"seed {seed}": demonstration.train(seed) for seed in asked.seeds}
    rounds = [each for seed in asked.seeds for each in demonstration.curves(seed)]
    _draw(rounds, asked.folder / "learning.png")
    print(f"\n{_curves(rounds)}\n")
    published = None
    if not asked.quick:
        published = demonstration.publish(next(iter(policies.values())))
        print(f"\n{_told(published)}\n")
    found = contest(
        Runs(folder=asked.folder / "contest", train=asked.train, jobs=asked.jobs),
        {START: CLONED, **policies},
        num_tasks=asked.tasks,
        num_seeds=asked.runs,
        num_other_seeds=1 if asked.quick else 2,
        tell=print,
    )
    found += together(found, list(policies), who=LEARNED)
    told = results(found)
    write(
        asked.folder / "learning.json",
        " ".join(["learning", *arguments]),
        {"rounds": rounds, "published": published, "results": told, "runs": found},
    )
    print(f"\n{render(told)}\n")
    for who in (START, *policies, LEARNED):
        print(f"half of the heuristic's regret less that of {who}: {halved(found, who)}")
    print(f"all of it is in {asked.folder}")


def _told(published: Published) -> str:
    if not published.passed:
        return "the policy of the first seed did not pass the gate: it was not published"
    if published.taken_up is None:
        return "it was published, and the run that was under way did not take it up"
    return (
        f"it was published as version {published.version}, and a run that was under way took it up "
        f"after epoch {published.taken_up + 1}"
    )


def _curves(rounds: Sequence[Round]) -> str:
    rows = [
        [
            str(each.seed),
            str(each.number + 1),
            *(f"{each.values[name]:.3f}" if name in each.values else "" for name in CURVES),
        ]
        for each in rounds
    ]
    return table(["seed", "round", *(name.replace("_", " ") for name in CURVES)], rows)


def _draw(rounds: Sequence[Round], path: Path) -> None:
    """Mean utility of each round's runs; each round has tasks of its own."""
    by_seed: Mapping[int, list[Round]] = {
        seed: [each for each in rounds if each.seed == seed]
        for seed in dict.fromkeys(each.seed for each in rounds)
    }
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for seed, own in by_seed.items():
            axes.plot(
                [each.number + 1 for each in own],
                [each.values.get("return", float("nan")) for each in own],
                marker="o",
                label=f"training seed {seed}",
            )
        axes.axhline(0.0, linewidth=1, color="#57534e")
        axes.set_xlabel("round")
        axes.set_ylabel("mean utility of its runs")
        axes.legend(frameon=False)
        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=130, metadata={"Software": None})
