"""Runs with a governor, and what goes wrong in them."""

from collections.abc import Sequence
from typing import Any

import torch
from bad_seeds import build
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from runs import (
    listen,
    plant,
    tell,
)

from esper_lightning.callbacks import Governor, Kasmina, Tamiyo
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import (
    LIVE_STAGES,
    BlendSchedule,
    CommandKind,
    Event,
    Incubation,
    SeedStage,
    SystemState,
)
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tolaria import CNN, Digits, Tolaria

EPOCHS = 10


class Gardener(Policy):
    """Plants a blueprint after the third epoch, commits it when G4 lets it, culls at the end."""

    name = "gardener"

    def __init__(self, blueprint: str) -> None:
        self.blueprint = blueprint

    def decide(self, state: SystemState) -> list[Choice]:
        (slot,) = state.slots
        if slot.stage is SeedStage.DORMANT and not (slot.fossils or slot.num_culls):
            last = state.epoch + 2 >= (state.max_epochs or 0)
            return [] if last or state.epoch < 2 else [plant(slot.slot, self.blueprint)]
        if CommandKind.FOSSILIZE in slot.legal and slot.gate is not None and slot.gate.passed:
            return [tell(CommandKind.FOSSILIZE)]
        if slot.stage in LIVE_STAGES and state.epoch + 1 == state.max_epochs:
            return [tell(CommandKind.CULL)]
        return []


def train(
    policy: Policy | None,
    *,
    incubation: Incubation = Incubation.DIRECT,
    governor: Governor | None = None,
    callbacks: Sequence[Callback] = (),
    epochs: int = EPOCHS,
    **options: Any,
) -> tuple[Trainer, Kasmina, list[Event]]:
    seed_everything(0, verbose=False)
    data = Digits(seed=0, subset=320, batch_size=32)
    host = CNN(input_shape=data.input_shape, num_classes=data.num_classes, width=4)
    module = Tolaria(host=host, num_classes=data.num_classes)
    module.example_input_array = data.example_input()
    kasmina = Kasmina(
        slots=["features.1"],
        incubation=incubation,
        rules=LifecycleRules(blend=BlendSchedule(num_steps=8)),
        build=build,
    )
    tamiyo = [] if policy is None else [Tamiyo(risk=False, policy=policy)]
    defaults: dict[str, Any] = {"enable_checkpointing": False}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic=True,
        callbacks=[governor or Governor(), *tamiyo, kasmina, *callbacks],
        **{**defaults, **options},
    )
    events = listen(kasmina)
    trainer.fit(module, datamodule=data)
    return trainer, kasmina, events


class Poison(Callback):
    """Makes the host itself NaN in the middle of some epochs."""

    def __init__(self, epochs: Sequence[int]) -> None:
        self.epochs = epochs
        self.seen: list[int] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 2 and trainer.current_epoch in self.epochs:
            self.seen.append(trainer.current_epoch)
            with torch.no_grad():
                next(pl_module.parameters()).fill_(float("nan"))


class Weights(Callback):
    """What the network was after every boundary."""

    def __init__(self) -> None:
        self.by_epoch: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.by_epoch[trainer.current_epoch - 1] = {
            name: value.clone()
            for name, value in pl_module.state_dict().items()
            if not name.endswith("_extra_state")  # clocks go on
        }
