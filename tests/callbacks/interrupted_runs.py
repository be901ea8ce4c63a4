"""Tiny scripted runs through every stage, saved in and after every epoch, and resumed."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from runs import Script, plant, tell
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from esper_lightning import karn
from esper_lightning.callbacks import Governor, Kasmina, Tamiyo
from esper_lightning.callbacks.resumption import random_state
from esper_lightning.kasmina import Branch, GateRules, LifecycleRules
from esper_lightning.kasmina.record import SlotRecord
from esper_lightning.leyline import (
    Attachment,
    BlendSchedule,
    CommandKind,
    Incubation,
    ParameterValue,
    SeedStage,
    SlotShape,
    SystemState,
    decode,
)
from esper_lightning.tamiyo import Choice
from esper_lightning.tolaria import TensorDataModule, Tolaria

A, B = "0", "3"
STEPS = 4
"""Optimiser steps of an epoch; a blend takes 7."""
LENIENT = GateRules(
    price_per_parameter=0.0,
    price_per_flop=0.0,
    max_regression=1e9,
    max_output_ratio=1e9,
    max_gradient_spread=1e9,
    max_loss_spread=1e9,
)
RULES = LifecycleRules(blend=BlendSchedule(num_steps=7), embargo=1, max_fossils=1, gates=LENIENT)

Lines = Mapping[int, Sequence[Choice]]
_APART: Lines = {
    0: [plant(A, "unseen")],  # rests in GERMINATED for an epoch
    1: [plant(B, "noisy")],
    2: [tell(CommandKind.PAUSE, B)],
    4: [tell(CommandKind.RESUME, B)],
    7: [tell(CommandKind.FOSSILIZE, A)],
    8: [tell(CommandKind.CULL, B)],
    9: [tell(CommandKind.PRUNE, A)],
}
_DIRECT: Lines = {
    0: [plant(A, "unseen")],
    1: [plant(B, "noisy")],
    2: [tell(CommandKind.PAUSE, A)],
    3: [tell(CommandKind.RESUME, A), tell(CommandKind.CULL, B)],
    4: [tell(CommandKind.FOSSILIZE, A)],
    6: [tell(CommandKind.PRUNE, A)],
}
LINES = {
    Incubation.DIRECT: _DIRECT,
    Incubation.STRAIGHT_THROUGH: _APART,
    Incubation.SHADOW: _APART,
}
EPOCHS = {Incubation.DIRECT: 9, Incubation.STRAIGHT_THROUGH: 13, Incubation.SHADOW: 13}
OPTIMIZERS: Mapping[str, Any] = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.02),
}


class Noisy(Branch):
    """Draws from its stream in every pass; zero at birth."""

    attachment: ClassVar[Attachment] = Attachment.SERIES

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        features = shape.output.features
        self.first, self.last = nn.Linear(features, 4), nn.Linear(4, features)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.dropout(torch.tanh(self.first(x)), 0.3, self.training))


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    return Noisy(shape) if name in ("noisy", "unseen") else karn.build(name, parameters, shape)


class Saves(Checkpoint):
    """Saves in the middle and at the end of every epoch, as ``ModelCheckpoint`` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 1:
            trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-within.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-end.ckpt")


class Unseeing(Script):
    """Plants ``unseen`` where no forward pass was seen, so that G0 cannot be asked at once."""

    kasmina: Kasmina

    def decide(self, state: SystemState) -> list[Choice]:
        choices = super().decide(state)
        for choice in choices:
            if choice.blueprint == "unseen":
                self.kasmina.bed.slots[choice.slot].sample = None
        return choices


@dataclass
class Finished:
    """What a run left, to be compared bit for bit."""

    left: dict[str, Any]
    states: list[SystemState]


def network(optimizer: Any = None) -> Tolaria:
    """Before any growth."""
    host = nn.Sequential(
        *(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)),
    )
    return Tolaria(host=host, num_classes=3, optimizer=optimizer)


def run(
    incubation: Incubation,
    optimizer: str,
    *,
    save_in: Path | None = None,
    ckpt_path: Path | None = None,
    governor: Governor | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Finished:
    """A whole run, or the rest of one."""
    seed_everything(0 if ckpt_path is None else 99, verbose=False)
    model = network(OPTIMIZERS[optimizer])
    kasmina = Kasmina(slots=[A, B], incubation=incubation, rules=RULES, build=build)
    policy = Unseeing(LINES[incubation])
    policy.kasmina = kasmina
    tamiyo = Tamiyo(risk=False, policy=policy)
    trainer = Trainer(
        max_epochs=EPOCHS[incubation],
        logger=False,
        enable_checkpointing=save_in is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            *([governor] if governor else []),
            *(tamiyo, kasmina, *callbacks),
            *([Saves(save_in)] if save_in else []),
        ],
        **{"accelerator": "cpu", **options},
    )
    trainer.fit(model, datamodule=_data(), ckpt_path=ckpt_path)
    left = {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizer": trainer.optimizers[0].state_dict(),
        "rates": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "kasmina": kasmina.state_dict(),
        "tamiyo": tamiyo.state_dict(),
        "governor": governor and governor.state_dict(),
        "random": random_state(torch.device("cpu")),
        "step": trainer.global_step,
    }
    return Finished(left, policy.states)


def _data() -> TensorDataModule:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12 * STEPS, 5, generator=generator)
    y = (x[:, :3] + x[:, 1:4]).argmax(1)
    held = (x[-8:].clone(), y[-8:])
    train = (x[: 8 * STEPS].clone(), y[: 8 * STEPS])
    return TensorDataModule(train=train, val=held, test=(x[:4].clone(), y[:4]), batch_size=8)


def situations(checkpoint: Path) -> set[str]:
    """Stages in which slots are in a checkpoint, and what else can be half done."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    found: set[str] = set()
    for path in (A, B):
        raw = state[f"host.{path}._extra_state"].numpy().tobytes()
        record = decode(raw, SlotRecord)
        found.add(record.stage.name)
        if record.paused:
            found.add("paused")
        if record.stage is SeedStage.PROBATIONARY and record.age < 2:
            found.add("window pending")
        if 0 < float(state[f"host.{path}.alpha"]) < 1:
            found.add(f"alpha moving in {record.stage.name}")
    return found


def differences(a: Finished, b: Finished) -> list[str]:
    """Names of what is not the same, bit for bit."""
    return [name for name in a.left if not _equal(a.left[name], b.left[name])]


def _equal(a: Any, b: Any) -> bool:
    (ours, shape), (theirs, other) = tree_flatten(a), tree_flatten(b)
    return shape == other and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y
        for x, y in zip(ours, theirs, strict=True)
    )
