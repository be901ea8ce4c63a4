"""One run with each way of training, and what it reached."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import nn

from esper_lightning.callbacks import Governor, Kasmina, Tamiyo
from esper_lightning.evidence.flops import sample_flops
from esper_lightning.evidence.published.hosts import GrowingHost, Widths
from esper_lightning.evidence.published.methods import grow
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.tamiyo import Heuristic
from esper_lightning.tolaria import SplitDataModule, Tolaria, WarmupStableDecay
from esper_lightning.tolaria.optimizer import host_groups

LEARNING_RATE = 0.01
WEIGHT_DECAY = 1e-4
WARMUP_STEPS = 5
"""After neurons were added: the optimiser begins anew then."""
FIRST, LAST = 0.17, 0.42
"""Shares of the epochs between which neurons are added, the best of three for both methods and on
both hosts."""


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


def seeds_of_ours(data: SplitDataModule, host: GrowingHost, *, epochs: int, seed: int) -> Reading:
    """A run with the defaults of this project: Trainer, seeds, gates, heuristic, governor."""
    torch.manual_seed(seed)
    assert data.num_classes is not None
    model = Tolaria(host=host.ours(data), num_classes=data.num_classes)
    model.example_input_array = data.example_input()
    kasmina = Kasmina(root="host", slots=list(host.slots), rules=LifecycleRules(seed=seed))
    policy = Heuristic(budget=host.budget)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        deterministic=True,  # risk looks at no clock
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
    """How a network of ``gromo`` is trained.

    Attributes:
        epochs: in all.
        widths: to begin with.
        goal: widths to end with.
        method: how neurons are added; None adds none.
    """

    epochs: int
    widths: Widths
    goal: Widths
    method: str | None

    @property
    def events(self) -> Sequence[int]:
        """Epochs before which neurons are added, counted from 0."""
        if self.method is None:
            return ()
        return range(max(1, round(FIRST * self.epochs)), max(2, round(LAST * self.epochs)) + 1)


def train(data: SplitDataModule, host: GrowingHost, plan: Plan, *, seed: int) -> Reading:
    """A run in a plain loop, as users of ``gromo`` write it."""
    torch.manual_seed(seed)
    net = host.theirs(data, plan.widths)
    loader, total = data.train_dataloader(), plan.epochs * len(data.train_dataloader())
    example = data.example_input()
    optimizer, per_sample = _optimizer(net), sample_flops(net, example)
    policy, step, since, spent = WarmupStableDecay(), 0, -WARMUP_STEPS, 0.0
    begun = time.perf_counter()
    for epoch in range(plan.epochs):
        if epoch in plan.events:
            assert plan.method is not None
            left = len(plan.events) - list(plan.events).index(epoch)
            for layer, goal in enumerate(plan.goal):
                wanted = math.ceil((goal - host.widths_in(net)[layer]) / left)
                if wanted > 0:
                    spent += grow(net, data, layer=layer, neurons=wanted, method=plan.method)
            optimizer, per_sample, since = _optimizer(net), sample_flops(net, example), step
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


def _optimizer(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(host_groups(net, weight_decay=WEIGHT_DECAY), lr=LEARNING_RATE)
