"""What growing the width of a host could reach, beside what branches reach.

A narrow CNN is exchanged, in the middle of its training, for a wider one that computes the same:
new channels read old and new ones with fresh weights, old ones begin to read them from zero. A
branch between the narrow interfaces of two blocks cannot do this. Rivals are the wide network from
the beginning, for as many epochs and for as many training FLOPs, and the wide network with nothing
kept of the narrow one.

Chen et al. 2016 (Net2Net, arXiv:1511.05641) widen by copies; Evci et al. 2022 (GradMax,
arXiv:2201.05125) from zero, as here.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper_lightning.evidence.flops import sample_flops
from esper_lightning.evidence.frontier.statistics import interquartile_mean
from esper_lightning.evidence.frontier.tasks import TASKS
from esper_lightning.evidence.intervals import Interval
from esper_lightning.evidence.report import table, write
from esper_lightning.tolaria import CNN, Digits, FashionMNIST, SplitDataModule, WarmupStableDecay
from esper_lightning.tolaria.data import LabelledTensors
from esper_lightning.tolaria.hosts import ConvBlock
from esper_lightning.tolaria.optimizer import host_groups

LEARNING_RATE = 0.01
WEIGHT_DECAY = 1e-4
WARMUP_STEPS = 20

TASK_NAMES = ("digits", "fashion_6k")


class Plan(NamedTuple):
    """How a network is trained.

    Attributes:
        width: to begin with.
        epochs: in all.
        at: epochs after which it becomes wider; None for never.
        to: what width then.
        keeps: whether the wider one computes what the narrow one did, or begins anew.
    """

    width: int
    epochs: int
    at: int | None = None
    to: int = 0
    keeps: bool = True


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """One way of training, over all seeds.

    Attributes:
        way: in words.
        epochs: in all.
        test: accuracy in points.
        val_loss: cross-entropy, mean.
        gflops: of training, forward and backward.
        seeds: how many.
    """

    way: str
    epochs: int
    test: Interval
    val_loss: float
    gflops: float
    seeds: int


@torch.no_grad()
def widened(narrow: CNN, wide: CNN) -> CNN:
    """Give ``wide`` the function of ``narrow``; its new channels keep their fresh weights.

    Args:
        narrow: trained.
        wide: freshly initialised, of the same kind; changed and returned.
    """
    for old, new in zip(narrow.features, wide.features, strict=True):
        assert isinstance(old, ConvBlock)
        assert isinstance(new, ConvBlock)
        out, into = old.conv.weight.shape[:2]
        new.conv.weight[:out, :into] = old.conv.weight
        new.conv.weight[:out, into:] = 0.0
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(new.norm, name)[:out] = getattr(old.norm, name)
    features = narrow.head.in_features
    wide.head.weight[:, :features] = narrow.head.weight
    wide.head.weight[:, features:] = 0.0
    wide.head.bias.copy_(narrow.head.bias)
    return wide


class Reading(NamedTuple):
    """What one run reached: accuracy on test, loss on val, training FLOPs."""

    accuracy: float
    val_loss: float
    flops: float


def train(data: SplitDataModule, plan: Plan, *, seed: int) -> Reading:
    """One run, with the defaults of this project: AdamW, warm-up, plateau, decay."""
    torch.manual_seed(seed)
    splits = data.splits
    inputs, labels = _tensors(splits.train)
    net = _host(data, plan.width)
    optimizer, flops = _optimizer(net), sample_flops(net, inputs[:1])
    total = math.ceil(len(inputs) / data.batch_size) * plan.epochs
    policy, draw = WarmupStableDecay(), torch.Generator().manual_seed(seed)
    step, spent, since = 0, 0.0, -WARMUP_STEPS
    for epoch in range(plan.epochs):
        if epoch == plan.at:
            wide = _host(data, plan.to)
            net = widened(net, wide) if plan.keeps else wide
            optimizer, flops, since = _optimizer(net), sample_flops(net, inputs[:1]), step
        net.train()
        order = torch.randperm(len(inputs), generator=draw)
        for batch in torch.split(order, data.batch_size):
            warm = min(1.0, (step - since + 1) / WARMUP_STEPS)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * policy(step, total) * warm
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs[batch]), labels[batch])
            torch.autograd.backward(loss)
            optimizer.step()
            step, spent = step + 1, spent + flops * len(batch)
    net.eval()
    with torch.no_grad():
        (x, y), (val_x, val_y) = _tensors(splits.test), _tensors(splits.val)
        accuracy = (net(x).argmax(dim=1) == y).float().mean().item()
        return Reading(100 * accuracy, F.cross_entropy(net(val_x), val_y).item(), spent)


def run(
    data: SplitDataModule, *, narrow: int, wide: int, at: int, epochs: int, seeds: Sequence[int]
) -> list[Reached]:
    """All ways of training, each with all seeds."""
    x = data.example_input()
    share = sample_flops(_host(data, narrow), x) / sample_flops(_host(data, wide), x)
    equal = max(1, round(epochs - at + at * share))
    ways = {
        f"width {narrow}": Plan(narrow, epochs),
        f"width {wide}": Plan(wide, epochs),
        f"width {wide}, at the FLOPs of growing": Plan(wide, equal),
        f"width {narrow}, widened to {wide} after {at}": Plan(narrow, epochs, at, wide),
        f"the same, nothing kept after {at}": Plan(narrow, epochs, at, wide, keeps=False),
    }
    reached = []
    for way, plan in ways.items():
        told = [train(data, plan, seed=seed) for seed in seeds]
        reached.append(
            Reached(
                way=way,
                epochs=plan.epochs,
                test=interquartile_mean([reading.accuracy for reading in told]),
                val_loss=sum(reading.val_loss for reading in told) / len(told),
                gflops=sum(reading.flops for reading in told) / len(told) / 1e9,
                seeds=len(told),
            )
        )
    return reached


def _host(data: SplitDataModule, width: int) -> CNN:
    assert data.num_classes is not None
    return CNN(input_shape=data.input_shape, num_classes=data.num_classes, width=width)


def _optimizer(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(host_groups(net, weight_decay=WEIGHT_DECAY), lr=LEARNING_RATE)


def _tensors(split: LabelledTensors) -> tuple[Tensor, Tensor]:
    return split.prepared(split.inputs), split.labels


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence widening")
    parser.add_argument("--task", choices=TASK_NAMES, default="digits")
    parser.add_argument("--narrow", type=int, default=4, help="width to begin with")
    parser.add_argument("--wide", type=int, default=8, help="width to end with")
    parser.add_argument("--at", type=int, help="epochs before it is widened; half by default")
    parser.add_argument("--epochs", type=int, help="those of the task by default")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--data-dir", default="data", help="of fashion_6k")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/widening.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    epochs = options.epochs or TASKS[options.task].epochs
    data = (
        Digits()
        if options.task == "digits"
        else FashionMNIST(data_dir=options.data_dir, subset=6000)
    )
    reached = run(
        data,
        narrow=options.narrow,
        wide=options.wide,
        at=epochs // 2 if options.at is None else options.at,
        epochs=epochs,
        seeds=range(options.seeds),
    )
    write(options.out, " ".join(["widening", *arguments]), reached)
    print(
        table(
            ["network", "epochs", "test accuracy % [95 %]", "val loss", "training GFLOP", "seeds"],
            [
                [
                    each.way,
                    str(each.epochs),
                    f"{each.test.value:.2f} [{each.test.low:.2f}, {each.test.high:.2f}]",
                    f"{each.val_loss:.4f}",
                    f"{each.gflops:.2f}",
                    str(each.seeds),
                ]
                for each in reached
            ],
        )
    )
