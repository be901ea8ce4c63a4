"""What a growth event costs: the command, the boundary around it, and the first step after it."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from esper_lightning.callbacks import Kasmina
from esper_lightning.evidence.report import table, write
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    Decision,
    Event,
    SeedStage,
    SystemState,
)
from esper_lightning.tolaria import CNN, Digits, FashionMNIST, Tolaria
from esper_lightning.tolaria.data.splits import SplitDataModule

SLOTS = ["features.0", "features.1", "features.2"]
BLUEPRINTS = ("parallel_conv", "conv_residual", "channel_affine")


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds.

    Attributes:
        p50: median.
        p95: of twenty, one is longer.
        num: how many were measured.
    """

    p50: float
    p95: float
    num: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Of measured seconds, at least one."""
        p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
        return cls(p50=float(p50), p95=float(p95), num=len(seconds))

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p95:.1f} ({self.num})"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One data set.

    Attributes:
        data: what was trained on.
        command: from the controller's answer to a seed that is planted, checked by G0 and held by
            the optimiser.
        first_step: what the first step after planting takes beyond an ordinary one.
        boundary: all that Kasmina does at the end of an epoch, plantings included.
        quiet_boundary: the same where no command was given.
        step_ms: an ordinary step.
        epoch_steps: steps of a whole epoch.
        share: of an epoch's training steps that planting three seeds takes: three commands and a
            first step.
    """

    data: str
    command: Spread
    first_step: Spread
    boundary: Spread
    quiet_boundary: Spread
    step_ms: float
    epoch_steps: int
    share: float


class _Stopwatch(Kasmina):
    """Mutates the network: Kasmina, with the time that its parts take.

    Its controller plants a seed in every slot that is dormant and removes it an epoch later.
    """

    def __init__(self) -> None:
        super().__init__(root="host", slots=SLOTS, rules=LifecycleRules(embargo=1))
        self.commands: list[float] = []
        self.boundaries: list[tuple[float, bool]] = []
        self.steps: list[list[float]] = []
        self.planted: list[bool] = []
        self.controller = self._plant_and_cull
        self._last = 0.0
        self._commanded = False
        self._planting = False
        self.subscribe(self._hear)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self.steps.append([])
        self.planted.append(self._planting)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._last = time.perf_counter()
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.steps[-1].append(time.perf_counter() - self._last)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._commanded = self._planting = False
        began = time.perf_counter()
        super().on_train_epoch_end(trainer, pl_module)
        self.boundaries.append((time.perf_counter() - began, self._commanded))

    def _hear(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, Decision):
            self._commanded = True
            if event.command.kind is CommandKind.GERMINATE:
                self._planting = True
                self.commands.append(now - self._last)
        self._last = time.perf_counter()

    def _plant_and_cull(self, state: SystemState) -> list[Decision]:
        decisions = []
        for number, slot in enumerate(state.slots):
            if slot.stage is SeedStage.DORMANT:
                kind, blueprint = CommandKind.GERMINATE, BLUEPRINTS[number]
            elif slot.stage is SeedStage.PROBATIONARY:
                kind, blueprint = CommandKind.EMERGENCY, ""
            else:
                continue
            command = AdaptationCommand(
                id=f"{state.epoch}-{number}",
                run_id=state.run_id,
                kind=kind,
                slot=slot.slot,
                blueprint=blueprint,
            )
            decisions.append(
                Decision(
                    run_id=state.run_id, epoch=state.epoch, policy="stopwatch", command=command
                )
            )
        return decisions


def measure(data: SplitDataModule, *, epochs: int, batches: int) -> Cost:
    """Train the default host; every fourth boundary plants in all three slots.

    Args:
        data: to train on.
        epochs: the first is a warm-up.
        batches: training batches of an epoch, and at most as many for validation.
    """
    seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    host = CNN(input_shape=data.input_shape, num_classes=data.num_classes)
    model = Tolaria(host=host, num_classes=data.num_classes)
    model.example_input_array = data.example_input()
    watch = _Stopwatch()
    Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        limit_train_batches=batches,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    ).fit(model, datamodule=data)
    grown = [times for times, planted in zip(watch.steps, watch.planted, strict=True) if planted]
    first = [times[0] - median(times[1:]) for times in grown]
    step = median(second for times in watch.steps[1:] for second in times[1:])
    whole = -(-len(data.splits.train) // data.batch_size)
    spent = 3 * median(watch.commands) + median(first)
    return Cost(
        data=data.name,
        command=Spread.of(watch.commands),
        first_step=Spread.of(first),
        boundary=Spread.of([seconds for seconds, commanded in watch.boundaries if commanded]),
        quiet_boundary=Spread.of([s for s, commanded in watch.boundaries[1:] if not commanded]),
        step_ms=1e3 * step,
        epoch_steps=whole,
        share=spent / (step * whole),
    )


def render(costs: Sequence[Cost]) -> str:
    """A Markdown table."""
    rows = [
        [
            cost.data,
            str(cost.command),
            str(cost.first_step),
            str(cost.boundary),
            str(cost.quiet_boundary),
            f"{cost.step_ms:.1f}",
            f"{cost.share:.3f} of {cost.epoch_steps} steps",
        ]
        for cost in costs
    ]
    header = ["data", "command", "first step, added", "boundary", "quiet boundary", "step"]
    told = table([*header, "3 seeds, share of an epoch"], rows)
    return f"{told}\n\nMilliseconds, p50 / p95 (number measured)."


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence planting")
    parser.add_argument("--epochs", type=int, default=60, help="of which every fourth plants")
    parser.add_argument("--batches", type=int, default=10, help="training batches of an epoch")
    parser.add_argument("--data-dir", type=Path, help="of Fashion-MNIST; digits without it")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/planting.json"))
    options = parser.parse_args(arguments)
    data: SplitDataModule = Digits()
    if options.data_dir is not None:
        data = FashionMNIST(data_dir=options.data_dir, subset=6000)
    costs = [measure(data, epochs=options.epochs, batches=options.batches)]
    write(options.out, " ".join(["planting", *arguments]), costs)
    print(render(costs))
