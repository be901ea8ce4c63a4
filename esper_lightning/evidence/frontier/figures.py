"""The benchmark's figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from esper_lightning.evidence.frontier.outcomes import ABLATIONS, TITLES, Outcome, Outcomes
from esper_lightning.evidence.frontier.statistics import interquartile_mean, paired_difference
from esper_lightning.evidence.frontier.tasks import TASKS
from esper_lightning.nissa.figure_style import SOFT_INK, STYLE

_COSTS: Mapping[str, Callable[[Outcome], float]] = {
    "training GFLOP": lambda outcome: outcome.flops / 1e9,
    "parameters": lambda outcome: outcome.parameters,
    "wall time, s": lambda outcome: outcome.wall_s,
}
_GROWN = "#c2410c"
_STATIC = "#1d4ed8"
_OTHER = "#57534e"
_MARKERS = "osD^vPX*<>hdp8H1234+x|_"


def save_figures(by_task: Mapping[str, Outcomes], folder: Path) -> list[Path]:
    """Write ``frontier.png``, accuracy against each cost, and ``differences.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"frontier": _frontier, "differences": _differences}
    paths = []
    with matplotlib.style.context(["default", STYLE]):
        for name, draw in drawings.items():
            path = folder / f"{name}.png"
            figure = draw(by_task)
            FigureCanvasAgg(figure)
            figure.savefig(path, dpi=130, bbox_inches="tight", metadata={"Software": None})
            paths.append(path)
    return paths


def _frontier(by_task: Mapping[str, Outcomes]) -> Figure:
    """A row for each task, a column for each cost; up and to the left is better."""
    figure = Figure(figsize=(4.2 * len(_COSTS), 3.1 * len(by_task)), layout="constrained")
    grid = figure.subplots(len(by_task), len(_COSTS), squeeze=False, sharey="row")
    shown = [name for name in TITLES if name not in ABLATIONS]
    for row, (task, found) in zip(grid, by_task.items(), strict=True):
        for axes, (title, cost) in zip(row, _COSTS.items(), strict=True):
            _scatter(axes, found, cost, shown)
            axes.set_xlabel(title)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel("test accuracy, %")
        row[0].set_title(TASKS[task].title, loc="left")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _scatter(
    axes: Axes, found: Outcomes, cost: Callable[[Outcome], float], shown: Sequence[str]
) -> None:
    for number, name in enumerate(shown):
        if name not in found:
            continue
        told = list(found[name].values())
        accuracy = interquartile_mean([outcome.test for outcome in told])
        below, above = accuracy.value - accuracy.low, accuracy.high - accuracy.value
        axes.errorbar(
            [float(np.mean([cost(outcome) for outcome in told]))],
            [accuracy.value],
            yerr=None if len(told) < 2 else [[below], [above]],
            marker=_MARKERS[number % len(_MARKERS)],
            color=_colour(name),
            linestyle="none",
            capsize=2,
            label=TITLES[name],
        )


def _differences(by_task: Mapping[str, Outcomes]) -> Figure:
    """Grown minus each other arm, paired by seed."""
    there = set[str]().union(*by_task.values())
    names = [name for name in TITLES if name != "grown" and name in there]
    size = (4.6 * len(by_task) + 2, 1.2 + 0.25 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    row = figure.subplots(1, len(by_task), squeeze=False, sharey=True)[0]
    for axes, (task, found) in zip(row, by_task.items(), strict=True):
        axes.axvline(0, color=SOFT_INK, linewidth=0.8)
        for place, name in enumerate(names):
            seeds = sorted(found.get(name, {}).keys() & found.get("grown", {}).keys())
            if not seeds:
                continue
            gap = paired_difference(
                [found["grown"][seed].test for seed in seeds],
                [found[name][seed].test for seed in seeds],
            )
            if len(seeds) > 1:
                axes.plot([gap.low, gap.high], [place, place], color=_colour(name), linewidth=2)
            axes.plot([gap.value], [place], "o", color=_colour(name))
        axes.set_title(TASKS[task].title, loc="left")
        axes.set_xlabel("grown minus this, points")
    row[0].set_yticks(range(len(names)), [TITLES[name] for name in names])
    row[0].invert_yaxis()
    return figure


def _colour(name: str) -> str:
    if name in ("grown", "periodic", "random", "inserted"):
        return _GROWN
    return _OTHER if name in (*ABLATIONS, "host") else _STATIC
