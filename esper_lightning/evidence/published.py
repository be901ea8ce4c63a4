"""Growth by seeds beside published methods: TINY and GradMax, as the library ``gromo`` has them.

All of them begin with the same MLP, train on the same data with the same optimiser and rates for
as many epochs, and end with about as many parameters. Ours adds branches beside its layers, once,
by the heuristic; theirs add neurons to its hidden layers, a few after each of several epochs, as
statistics of gradients over the training data tell. A network of that size from scratch is beside
them.

Verbockhaven et al. 2024 (TINY, arXiv:2405.19816); Evci et al. 2022 (GradMax, arXiv:2201.05125).
"""

import argparse
import importlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from esper_lightning.callbacks import Governor, Kasmina, Tamiyo
from esper_lightning.evidence.frontier.statistics import interquartile_mean, paired_difference
from esper_lightning.evidence.intervals import Interval
from esper_lightning.evidence.report import table, write
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.tamiyo import GrowthBudget, Heuristic
from esper_lightning.tolaria import (
    MLP,
    Digits,
    FashionMNIST,
    SplitDataModule,
    Tolaria,
    WarmupStableDecay,
)
from esper_lightning.tolaria.optimizer import host_groups

LEARNING_RATE = 0.01
WEIGHT_DECAY = 1e-4
WARMUP_STEPS = 5
"""After neurons were added: the optimiser begins anew then."""
DEPTH = 2
FIRST, LAST = 0.17, 0.42
"""Shares of the epochs between which neurons are added, the best of three for both methods."""
SCALES = (0.1, 0.5, 1.0)
"""What the line search of TINY tries, the ones of the tutorials of ``gromo`` without 0."""

METHODS: Mapping[str, Mapping[str, bool]] = {
    "TINY": {
        "compute_delta": False,
        "use_covariance": True,
        "alpha_zero": False,
        "omega_zero": False,
        "use_projection": True,
        "ignore_singular_values": False,
    },
    "GradMax": {
        "compute_delta": False,
        "use_covariance": False,
        "alpha_zero": True,
        "omega_zero": False,
        "use_projection": False,
        "ignore_singular_values": True,
    },
}
"""Settings of ``gromo`` that are the published methods, by its documentation."""

OURS, STATIC = "seeds (ours)", "that size from scratch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What one run reached and what it cost.

    Attributes:
        test: accuracy in points.
        parameters: of the final network.
        flops: of training, with all that growing computes.
        wall_s: of training, with validation after every epoch.
    """

    test: float
    parameters: int
    flops: float
    wall_s: float


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


class ReLU(nn.Module):
    """ReLU whose derivative at 0 is 1, as GradMax needs: its neurons are born with 0 input."""

    def forward(self, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        return torch.where(x >= 0, x, 0.0)


def run(
    data: Callable[[int], SplitDataModule], *, width: int, epochs: int, seeds: Sequence[int]
) -> list[Reached]:
    """All ways of training, each with all seeds.

    Args:
        data: of a seed.
        width: of the hidden layers to begin with.
        epochs: in all.
        seeds: of weights and order of data.
    """
    told: dict[str, list[Reading]] = {way: [] for way in (OURS, *METHODS, STATIC)}
    for seed in seeds:
        ours = seeds_of_ours(data(seed), width=width, epochs=epochs, seed=seed)
        told[OURS].append(ours)
        for method in METHODS:
            plan = Plan(width=width, epochs=epochs, parameters=ours.parameters, method=method)
            told[method].append(train(data(seed), plan, seed=seed))
        size = width_of(data(seed), ours.parameters)
        plan = Plan(width=size, epochs=epochs, parameters=ours.parameters, method=None)
        told[STATIC].append(train(data(seed), plan, seed=seed))
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


def seeds_of_ours(data: SplitDataModule, *, width: int, epochs: int, seed: int) -> Reading:
    """A run with the defaults of this project: Trainer, seeds, gates, heuristic, governor."""
    torch.manual_seed(seed)
    assert data.num_classes is not None
    host = MLP(input_shape=data.input_shape, num_classes=data.num_classes, width=width, depth=DEPTH)
    model = Tolaria(host=host, num_classes=data.num_classes)
    model.example_input_array = data.example_input()
    slots = [f"layers.{index}" for index in range(DEPTH)]
    kasmina = Kasmina(root="host", slots=slots, rules=LifecycleRules(seed=seed))
    policy = Heuristic(budget=GrowthBudget(max_growth=4.0, max_flops_growth=8.0))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[kasmina, Governor(), Tamiyo(policy=policy)],
    )
    begun = time.perf_counter()
    trainer.fit(model, datamodule=data)
    wall = time.perf_counter() - begun
    return Reading(
        test=_accuracy(model, data),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=kasmina.costs.total,
        wall_s=wall,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How an MLP is trained.

    Attributes:
        width: of its hidden layers to begin with.
        epochs: in all.
        parameters: to end with, about.
        method: how neurons are added; None adds none.
    """

    width: int
    epochs: int
    parameters: int
    method: str | None

    @property
    def events(self) -> Sequence[int]:
        """Epochs after which neurons are added."""
        if self.method is None:
            return ()
        return range(max(1, round(FIRST * self.epochs)), max(2, round(LAST * self.epochs)) + 1)


def train(data: SplitDataModule, plan: Plan, *, seed: int) -> Reading:
    """A run in a plain loop, as users of ``gromo`` write it."""
    torch.manual_seed(seed)
    net = _growing_mlp(data, plan.width)
    loader, total = data.train_dataloader(), plan.epochs * len(data.train_dataloader())
    goal = width_of(data, plan.parameters)
    optimizer, per_sample = _optimizer(net), _step_flops(net, data)
    policy, step, since, spent = WarmupStableDecay(), 0, -WARMUP_STEPS, 0.0
    begun = time.perf_counter()
    for epoch in range(plan.epochs):
        if epoch in plan.events:
            assert plan.method is not None
            left = len(plan.events) - list(plan.events).index(epoch)
            for layer in range(DEPTH):
                missing = goal - net.layers[layer].out_features
                wanted = math.ceil(missing / left)
                if wanted > 0:
                    spent += _grow(net, data, layer=layer, neurons=wanted, method=plan.method)
            optimizer, per_sample, since = _optimizer(net), _step_flops(net, data), step
        net.train()
        for x, y in loader:
            warm = min(1.0, (step - since + 1) / WARMUP_STEPS)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * policy(step, total) * warm
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(net(x), y))
            optimizer.step()
            step, spent = step + 1, spent + per_sample * len(x)
        _losses(net, data)
    wall = time.perf_counter() - begun
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Reading(test=_accuracy(net, data), parameters=parameters, flops=spent, wall_s=wall)


def _grow(net: Any, data: SplitDataModule, *, layer: int, neurons: int, method: str) -> float:
    """Add neurons to a hidden layer; returns the FLOPs that it took."""
    net.eval()
    net.set_growing_layers(index=layer)
    net.init_computation()
    samples, per_sample = 0, _step_flops(net, data)
    for x, y in data.train_dataloader():
        net.zero_grad()
        torch.autograd.backward(F.cross_entropy(net(x), y, reduction="sum"))
        net.update_computation()
        samples += len(x)
    spent = samples * per_sample
    net.compute_optimal_updates(maximum_added_neurons=neurons, **METHODS[method])
    net.reset_computation()
    net.dummy_select_update()
    if method == "GradMax":
        net.currently_updated_layer.normalize_optimal_updates(
            normalization_type="gradmax_normalization"
        )
        scale = 1.0
    else:
        scale = min(SCALES, key=lambda tried: _loss_if(net, data, tried))
        spent += len(SCALES) * samples * per_sample / 3  # forward only, at least
    net.set_scaling_factor(scale)
    net.apply_change()
    net.zero_grad()
    return spent


@torch.no_grad()
def _loss_if(net: Any, data: SplitDataModule, scale: float) -> float:
    """On the training data, with the new neurons at that scale."""
    net.set_scaling_factor(scale)
    losses = [
        F.cross_entropy(net.extended_forward(x), y, reduction="sum").item()
        for x, y in data.train_dataloader()
    ]
    return math.fsum(losses)


@torch.no_grad()
def _losses(net: nn.Module, data: SplitDataModule) -> None:
    """What a user looks at after each epoch; nothing depends on it."""
    net.eval()
    for x, y in data.val_dataloader():
        F.cross_entropy(net(x), y).item()


@torch.no_grad()
def _accuracy(net: nn.Module, data: SplitDataModule) -> float:
    net.eval()
    hits = [(net(x).argmax(dim=1) == y).float() for x, y in data.test_dataloader()]
    return 100 * torch.cat(hits).mean().item()


def _step_flops(net: nn.Module, data: SplitDataModule) -> float:
    """Of one sample, forward and backward."""
    x = data.example_input()
    with FlopCounterMode(display=False) as counter:
        out: Tensor = net(x)
        torch.autograd.backward(out.sum())
    net.zero_grad()
    return float(counter.get_total_flops() / len(x))


def width_of(data: SplitDataModule, parameters: int) -> int:
    """Of the hidden layers of the MLP whose number of parameters is nearest."""
    assert data.num_classes is not None
    inputs, classes = math.prod(data.input_shape), data.num_classes

    def distance(width: int) -> int:
        hidden = (DEPTH - 1) * (width + 1) * width
        return abs((inputs + 1) * width + hidden + (width + 1) * classes - parameters)

    return min(range(1, parameters // inputs + 2), key=distance)


def _growing_mlp(data: SplitDataModule, width: int) -> Any:
    try:
        gromo = importlib.import_module("gromo.containers.growing_mlp")
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: the published methods need `pip install 'esper-lightning[published]'`")
    return gromo.GrowingMLP(
        in_features=math.prod(data.input_shape),
        out_features=data.num_classes,
        hidden_size=width,
        number_hidden_layers=DEPTH,
        activation=ReLU(),
        device=torch.device("cpu"),
    )


def _optimizer(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(host_groups(net, weight_decay=WEIGHT_DECAY), lr=LEARNING_RATE)


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
    parser.add_argument("--task", choices=("digits", "fashion_6k"), default="digits")
    parser.add_argument("--width", type=int, default=8, help="of the hidden layers to begin with")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--data-dir", default="data", help="of fashion_6k")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/published.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    def data(seed: int) -> SplitDataModule:
        if options.task == "digits":
            return Digits(seed=seed)
        return FashionMNIST(data_dir=options.data_dir, subset=6000, seed=seed)

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    reached = run(data, width=options.width, epochs=options.epochs, seeds=seeds)
    write(options.out, " ".join(["published", *arguments]), reached)
    print(render(reached))
