"""Short real runs for tests: a scripted policy, digits cut small, somebody else's module."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.kasmina import GateRules, LifecycleRules
from esper_lightning.leyline import (
    BlendSchedule,
    CommandKind,
    Event,
    Incubation,
    StageChanged,
    SystemState,
)
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tolaria import CNN, Digits, Tolaria

FREE = LifecycleRules(
    blend=BlendSchedule(num_steps=4),
    gates=GateRules(price_per_parameter=0.0, price_per_flop=0.0),
)


class Script(Policy):
    """Does what it is told, epoch by epoch."""

    name: ClassVar[str] = "script"

    def __init__(self, lines: Mapping[int, Sequence[Choice]]) -> None:
        self.lines = lines
        self.states: list[SystemState] = []

    def decide(self, state: SystemState) -> list[Choice]:
        self.states.append(state)
        return list(self.lines.get(state.epoch, ()))


def plant(slot: str = "features.1", blueprint: str = "parallel_conv", **parameters: Any) -> Choice:
    return Choice(
        kind=CommandKind.GERMINATE,
        slot=slot,
        blueprint=blueprint,
        parameters=parameters,
        reason="told to",
    )


def tell(kind: CommandKind, slot: str = "features.1") -> Choice:
    return Choice(kind=kind, slot=slot, reason="told to")


def digits_run(
    policy: Policy,
    *,
    epochs: int = 4,
    seed: int = 0,
    incubation: Incubation = Incubation.DIRECT,
    rules: LifecycleRules = FREE,
    callbacks: Sequence[Callback] = (),
    host: nn.Module | None = None,
    slots: str | Sequence[str] = "auto",
    ckpt_path: str | None = None,
    tolaria: Mapping[str, Any] | None = None,
    reverse: bool = False,
    grower: Tamiyo | None = None,
    **trainer: Any,
) -> tuple[Tolaria, Kasmina, Trainer]:
    seed_everything(seed, verbose=False)
    data = Digits(seed=seed, subset=160, batch_size=32)
    network = host or CNN(input_shape=data.input_shape, num_classes=data.num_classes, width=3)
    model = Tolaria(host=network, num_classes=data.num_classes, **(tolaria or {}))
    model.example_input_array = data.example_input()
    kasmina = Kasmina(root="host", slots=slots, incubation=incubation, rules=rules)
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "deterministic": True,
    }
    options.update(trainer)
    listed = [grower or Tamiyo(risk=False, policy=policy), kasmina, *callbacks]
    run = Trainer(callbacks=listed[::-1] if reverse else listed, **options)
    run.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return model, kasmina, run


def moves(events: Sequence[Event], slot: str = "features.1") -> list[str]:
    return [e.after.name for e in events if isinstance(e, StageChanged) and e.slot == slot]


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


def listen(kasmina: Kasmina) -> list[Event]:
    listener = Listener()
    kasmina.subscribe(listener)
    return listener.events


class Plain(LightningModule):
    """Somebody else's module: one AdamW, no scheduler, its own names."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 10)
        )

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def plain_data(rows: int = 192, batch_size: int = 32) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """So few rows by default that the host overfits; from 2,048 on it is too narrow for them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows + rows // 3, 64, generator=generator)
    y = (x[:, :10] + x[:, 10:20]).argmax(1)
    train = DataLoader(TensorDataset(x[:rows], y[:rows]), batch_size=batch_size)
    return train, DataLoader(TensorDataset(x[rows:], y[rows:]), batch_size=2 * batch_size)


def plain_trainer(callbacks: Sequence[Callback], *, epochs: int = 6, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
