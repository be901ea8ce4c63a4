"""What an epoch of the small network is worth to the large one, and what it costs.

Growing trains a small network for some epochs and a large one for the rest. It ends as well as the
large network would have that had been trained for ``worth * small epochs + large epochs``, and it
costs as much as the large one for ``price * small epochs + large epochs``. So it pays at equal
training FLOPs where an epoch of the small network is worth more than its price, and at equal epochs
where it is worth more than one of the large; by what the large one gains between those lengths.

Price, worth and slope are measured: the host and the grown topology are trained from scratch for
several numbers of epochs, each run with a whole schedule. How well the large one does after how
many epochs is the scale on which both the host, at the length after which seeds were planted, and
the grown network, at its end, are read off.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy.optimize import isotonic_regression

from esper_lightning.evidence.alone import alone_in
from esper_lightning.evidence.frontier.arms import ARMS, Arm, Done
from esper_lightning.evidence.frontier.command import overrides_apart, seeds_of
from esper_lightning.evidence.frontier.matched import Matched
from esper_lightning.evidence.frontier.pool import run_all
from esper_lightning.evidence.frontier.rows import Row, commit_of
from esper_lightning.evidence.frontier.tasks import TASKS
from esper_lightning.evidence.intervals import Interval
from esper_lightning.evidence.report import table, write

SMALL = (1 / 12, 0.25, 1 / 3, 0.5, 2 / 3, 1.0)
LARGE = (1 / 12, 1 / 6, 0.25, 1 / 3, 0.5, 2 / 3, 1.0, 1.5)
"""Lengths of the two networks' runs, as shares of the task's epochs."""
MOMENTS = (1 / 12, 0.25, 2 / 3)
"""Other moments than half of the run at which seeds are planted, as shares of the epochs."""
RESAMPLES = 2000
INTERVALS = (
    "alone",
    "in_the_end",
    "slope",
    "foretold",
    "ahead",
    "foretold_equal_epochs",
    "ahead_equal_epochs",
)
"""Figures of :class:`Exchange` that have one."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """Of one task and one moment of planting; epochs are those of the large network.

    Attributes:
        task: its name.
        seeds: how many.
        price: FLOPs of an epoch of the small network over those of the large one.
        planted: epochs before the first planting, those of the small network, mean.
        alone: what such an epoch was worth by the accuracy of the small network trained so long.
        in_the_end: what it was worth by the accuracy of the grown network.
        cost: epochs that growing cost, measuring passes included.
        slope: points of test accuracy that an epoch more brings at that cost.
        foretold: points by which growth would be ahead of the large network at equal FLOPs, by
            ``alone``.
        ahead: points by which it was.
        foretold_equal_epochs, ahead_equal_epochs: likewise at equal epochs.
    """

    task: str
    seeds: int
    price: float
    planted: float
    alone: Interval
    in_the_end: Interval
    cost: float
    slope: Interval
    foretold: Interval
    ahead: Interval
    foretold_equal_epochs: Interval
    ahead_equal_epochs: Interval


def arms() -> dict[str, Arm]:
    """``grown``, both networks for every length, and growing at other moments.

    The gates have no say: where they cull everything there is no large network.
    """
    found = {"grown": ARMS["inserted"]}
    found |= {_name("small", share): _long(share, "host") for share in SMALL}
    found |= {_name("large", share): _long(share, "retrained") for share in LARGE}
    found |= {_name("grown", share): _planted_at(share) for share in MOMENTS}
    return {name: dataclasses.replace(arm, name=name, title=name) for name, arm in found.items()}


def _long(share: float, arm: str) -> Arm:
    """The arm of the frontier, for a share of the task's epochs."""

    def overrides(done: Done) -> list[str]:
        epochs = f"trainer.max_epochs={_epochs(share, done.task.epochs)}"
        return [*ARMS[arm].overrides(done), epochs]

    return dataclasses.replace(ARMS[arm], overrides=overrides)


def _planted_at(share: float) -> Arm:
    inserted = ARMS["inserted"]

    def overrides(done: Done) -> list[str]:
        return [
            *inserted.overrides(done),
            "tamiyo.policy.min_epoch=1",
            f"tamiyo.policy.latest_fraction={share:.4f}",
        ]

    return dataclasses.replace(inserted, overrides=overrides)


def _name(network: str, share: float) -> str:
    return f"{network}_{round(100 * share)}"


def _lengths(network: str, shares: Sequence[float]) -> list[str]:
    return [_name(network, share) for share in shares]


def _epochs(share: float, whole: int) -> int:
    return max(1, round(share * whole))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Runs:
    """Of one task; arrays have a row for each seed.

    Attributes:
        small_epochs, large_epochs: lengths, ascending.
        small, large: test accuracy in points, a column for each length.
        grown: test accuracy in points.
        planted: epochs before the first planting.
        price: FLOPs of a small epoch over those of a large one.
        cost: of growing, in epochs of the large network.
        epochs: of growing, in all.
    """

    small_epochs: Any
    large_epochs: Any
    small: Any
    large: Any
    grown: Any
    planted: Any
    price: Any
    cost: Any
    epochs: int

    def figures(self, draw: Any) -> dict[str, float]:
        """Of the seeds that ``draw`` holds the indices of.

        What is read off or foretold goes by the rising curve that is nearest to the means; what is
        measured, by the means.
        """
        large, grown = self.large[draw].mean(axis=0), self.grown[draw].mean()
        scale, small = _rising(large), _rising(self.small[draw].mean(axis=0))
        planted, cost = self.planted[draw].mean(), self.cost[draw].mean()
        then = self.epochs - planted
        alone = self._read_off(np.interp(planted, self.small_epochs, small), scale)
        ended, foretold = self._read_off(grown, scale), self._accuracy(alone + then, scale)
        found = {
            "price": self.price[draw].mean(),
            "planted": planted,
            "cost": cost,
            "alone": alone / planted,
            "in_the_end": (ended - then) / planted,
            "slope": self._accuracy(cost + 0.5, scale) - self._accuracy(cost - 0.5, scale),
            "foretold": foretold - self._accuracy(cost, scale),
            "ahead": grown - self._accuracy(cost, large),
            "foretold_equal_epochs": foretold - self._accuracy(self.epochs, scale),
            "ahead_equal_epochs": grown - self._accuracy(self.epochs, large),
        }
        return {name: float(value) for name, value in found.items()}

    def _read_off(self, accuracy: float, scale: Any) -> float:
        """Epochs after which the large network is as good, within the lengths that were run."""
        return float(np.interp(accuracy, scale, self.large_epochs))

    def _accuracy(self, epochs: float, curve: Any) -> float:
        return float(np.interp(epochs, self.large_epochs, curve))


def _rising(curve: Any) -> Any:
    """The curve that never falls and is nearest in squares."""
    return isotonic_regression(curve).x


def exchange(
    rows: Mapping[tuple[str, str, int], Row], task: str, epochs: int, *, grown: str = "grown"
) -> Exchange | None:
    """What the runs of one task say; None where fewer than two seeds have all of them.

    Args:
        rows: by task, arm and seed.
        task: a name.
        epochs: of growing.
        grown: the arm of a moment of planting.
    """
    wanted = [grown, *_lengths("small", SMALL), *_lengths("large", LARGE)]
    seeds = sorted({seed for name, _, seed in rows if name == task})
    seeds = [seed for seed in seeds if all((task, arm, seed) in rows for arm in wanted)]
    if len(seeds) < 2:
        return None

    def column(arm: str) -> list[float]:
        return [100 * rows[task, arm, seed].summary.test["test/acc"] for seed in seeds]

    def flops(arm: str) -> Any:
        return np.array([rows[task, arm, seed].summary.training_flops for seed in seeds])

    small, large = flops(_name("small", 1.0)), flops(_name("large", 1.0))
    found = _Runs(
        small_epochs=[_epochs(share, epochs) for share in SMALL],
        large_epochs=[_epochs(share, epochs) for share in LARGE],
        small=np.array([column(arm) for arm in _lengths("small", SMALL)]).T,
        large=np.array([column(arm) for arm in _lengths("large", LARGE)]).T,
        grown=np.array(column(grown)),
        planted=np.array([_planted(rows[task, grown, seed], epochs) for seed in seeds]),
        price=small / large,
        cost=epochs * flops(grown) / large,
        epochs=epochs,
    )
    draws = np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    value = found.figures(np.arange(len(seeds)))
    drawn = [found.figures(draw) for draw in draws]

    def interval(name: str) -> Interval:
        low, high = np.percentile([each[name] for each in drawn], [2.5, 97.5])
        return Interval(value=value[name], low=float(low), high=float(high))

    return Exchange(
        task=task,
        seeds=len(seeds),
        price=value["price"],
        planted=value["planted"],
        cost=value["cost"],
        **{name: interval(name) for name in INTERVALS},
    )


def _planted(row: Row, epochs: int) -> int:
    """Epochs before the first seed; all of them where there was none."""
    summary = row.summary
    grown = [seed.planted_epoch + 1 for seed in summary.grown]
    culled = [seed.planted_epoch + 1 for seed in summary.culled]
    return min([*grown, *culled], default=epochs)


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m esper_lightning.evidence exchange",
        description="What an epoch of the small network is worth to the large one. Interrupt it at "
        "any time: what is finished is kept, and the same command goes on.",
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=seeds_of, default=range(5), metavar="A-B")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--train", type=Path, default=Path("train.py"), help="path of train.py")
    parser.add_argument("--directory", type=Path, default=Path("outputs/exchange"))
    options = parser.parse_args(overrides_apart(arguments))
    if not options.train.is_file():
        parser.error(f"{options.train} is not there; run from the repository or give --train")
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    if len(options.seeds) < 2:
        parser.error(f"an interval needs at least 2 seeds, got {len(options.seeds)}")
    tasks = [TASKS[name] for name in options.tasks]
    matched = Matched(
        folder=options.directory.resolve(),
        arms=arms(),
        commit=commit_of(options.train.parent),
        overrides=options.overrides,
    )
    for row in matched.kept.values():
        wanted = TASKS[row.task].epochs
        if row.arm.startswith("grown") and row.summary.epochs != wanted:
            parser.error(
                f"runs in {matched.folder} have {row.summary.epochs} epochs, not {wanted}; "
                "give another --directory"
            )
    runs = matched.missing(tasks, matched.arms, options.seeds)
    print(f"{len(runs)} runs to do, {len(matched.kept)} are there", flush=True)
    with alone_in(matched.folder):
        failures = run_all(
            runs, train=options.train, jobs=options.jobs, tell=partial(print, flush=True)
        )
    moments = [*_lengths("grown", MOMENTS), "grown"]
    told = [
        exchange(matched.kept, task.name, task.epochs, grown=grown)
        for task in tasks
        for grown in moments
    ]
    found = [each for each in told if each is not None]
    found.sort(key=lambda each: (options.tasks.index(each.task), each.planted))
    write(matched.folder / "exchange.json", " ".join(["exchange", *arguments]), found)
    print(as_table(found))
    if failures:
        sys.exit("\n".join(["runs failed:", *failures]))


def as_table(found: Sequence[Exchange]) -> str:
    """In Markdown, a line for each task and moment of planting."""
    return table(
        [
            "task",
            "seeds",
            "planted after",
            "price of an epoch",
            "worth, alone",
            "worth, in the end",
            "growing cost, epochs",
            "points per epoch",
            "equal FLOPs, foretold",
            "equal FLOPs, measured",
            "equal epochs, foretold",
            "equal epochs, measured",
        ],
        [
            [
                each.task,
                str(each.seeds),
                f"{each.planted:.1f}",
                f"{each.price:.2f}",
                _short(each.alone),
                _short(each.in_the_end),
                f"{each.cost:.1f}",
                _short(each.slope),
                _short(each.foretold),
                _short(each.ahead),
                _short(each.foretold_equal_epochs),
                _short(each.ahead_equal_epochs),
            ]
            for each in found
        ],
    )


def _short(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
