"""``python -m esper_lightning.evidence published``: all ways of training, side by side."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import msgspec
import torch

from esper_lightning.evidence.frontier.statistics import interquartile_mean, paired_difference
from esper_lightning.evidence.intervals import Interval
from esper_lightning.evidence.published.convolutions import GrowingResNet
from esper_lightning.evidence.published.hosts import GrowingHost
from esper_lightning.evidence.published.methods import METHODS
from esper_lightning.evidence.published.mlp import GrowingMLP
from esper_lightning.evidence.published.runs import Plan, Reading, seeds_of_ours, train
from esper_lightning.evidence.report import table, write
from esper_lightning.tolaria import CIFAR10Jpeg, Digits, FashionMNIST, SplitDataModule

OURS, STATIC = "seeds (ours)", "that size from scratch"

HOSTS: Mapping[str, Callable[[int, bool], GrowingHost]] = {
    "mlp": lambda width, _: GrowingMLP(width=width),
    "resnet": lambda width, whole: GrowingResNet(width=width, whole_kernels=whole),
}
"""Of a width, and whether new kernels are whole."""
WIDTHS = {"mlp": 8, "resnet": 4}
"""Where none is told."""

TASKS: Mapping[str, Callable[[str, int], SplitDataModule]] = {
    "digits": lambda _, seed: Digits(seed=seed),
    "fashion_6k": lambda folder, seed: FashionMNIST(data_dir=folder, subset=6000, seed=seed),
    "cifar10_jpeg": lambda folder, seed: CIFAR10Jpeg(
        data_dir=folder, subset=3000, num_val=1000, seed=seed
    ),
}
"""Of a folder and a seed, those of the benchmark."""


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """One way of training, over all seeds.

    Attributes:
        way: in words.
        test: accuracy in points.
        parameters: of the final network, mean.
        gflops: of training, mean.
        wall_s: of training, mean.
        ours_minus_this: in points, paired by seed; None for ours.
        seeds: how many.
    """

    way: str
    test: Interval
    parameters: float
    gflops: float
    wall_s: float
    ours_minus_this: Interval | None
    seeds: int


def run(
    data: Callable[[int], SplitDataModule],
    host: GrowingHost,
    *,
    epochs: int,
    seeds: Sequence[int],
) -> list[Reached]:
    """All ways of training, each with all seeds.

    Args:
        data: of a seed.
        host: that grows.
        epochs: in all.
        seeds: of weights and order of data.
    """
    told: dict[str, list[Reading]] = {way: [] for way in (OURS, *METHODS, STATIC)}
    for seed in seeds:
        ours = seeds_of_ours(data(seed), host, epochs=epochs, seed=seed)
        told[OURS].append(ours)
        goal = host.widths_of(data(seed), ours.parameters)
        for method in METHODS:
            plan = Plan(epochs=epochs, widths=host.thin, goal=goal, method=method)
            told[method].append(train(data(seed), host, plan, seed=seed))
        plan = Plan(epochs=epochs, widths=goal, goal=goal, method=None)
        told[STATIC].append(train(data(seed), host, plan, seed=seed))
    return [_reached(way, readings, told[OURS]) for way, readings in told.items()]


def _reached(way: str, readings: Sequence[Reading], ours: Sequence[Reading]) -> Reached:
    accuracies = [reading.test for reading in readings]
    gap = paired_difference([reading.test for reading in ours], accuracies)
    return Reached(
        way=way,
        test=interquartile_mean(accuracies),
        parameters=fmean(reading.parameters for reading in readings),
        gflops=fmean(reading.flops for reading in readings) / 1e9,
        wall_s=fmean(reading.wall_s for reading in readings),
        ours_minus_this=None if way == OURS else gap,
        seeds=len(readings),
    )


def render(reached: Sequence[Reached]) -> str:
    """A Markdown table."""
    header = [
        "network",
        "seeds",
        "test accuracy % [95 %]",
        "parameters",
        "training GFLOP",
        "wall s",
    ]
    return table(
        [*header, "ours minus this"],
        [
            [
                each.way,
                str(each.seeds),
                f"{each.test.value:.2f} [{each.test.low:.2f}, {each.test.high:.2f}]",
                f"{each.parameters:,.0f}",
                f"{each.gflops:.3f}",
                f"{each.wall_s:.2f}",
                _gap(each.ours_minus_this),
            ]
            for each in reached
        ],
    )


def _gap(gap: Interval | None) -> str:
    return "" if gap is None else f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence published")
    parser.add_argument("--host", choices=tuple(HOSTS), default="mlp")
    parser.add_argument("--task", choices=tuple(TASKS), default="digits")
    parser.add_argument(
        "--width",
        type=int,
        help="of the MLP's hidden layers to begin with (8), or of the first stage (4)",
    )
    parser.add_argument(
        "--whole-kernels",
        action="store_true",
        help="with resnet: statistics for whole new kernels, not for their middle alone (dear)",
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--data-dir", default="data", help="of fashion_6k and cifar10_jpeg")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/published.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    def data(seed: int) -> SplitDataModule:
        return TASKS[options.task](options.data_dir, seed)

    width = WIDTHS[options.host] if options.width is None else options.width
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    host = HOSTS[options.host](width, options.whole_kernels)
    reached = run(data, host, epochs=options.epochs, seeds=seeds)
    write(options.out, " ".join(["published", *arguments]), reached)
    print(render(reached))
