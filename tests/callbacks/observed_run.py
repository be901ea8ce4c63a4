"""A tiny module, and a stand-in for Kasmina that emits a fixed course of events."""

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from esper_lightning.leyline import (
    Event,
    Objective,
    RunEnded,
    RunStarted,
    SeedStage,
    SeedState,
    StageChanged,
    SystemState,
)

QUIET = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
    # Lightning 2.6 flattens loaders with an interface that torch 2.13 is leaving behind.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]
NUM_BATCHES = 4


class Tiny(LightningModule):
    """One linear layer on noise; fails in the step that ``fails_at`` names."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2))
        self.fails_at = fails_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fails_at:
            raise RuntimeError("the power went off")
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test/loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def loader(*, shuffle: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(NUM_BATCHES * 2, 3, generator=generator)
    return DataLoader(TensorDataset(inputs, torch.arange(8) % 2), batch_size=2, shuffle=shuffle)


class FakeKasmina(Callback):
    """Emits what Kasmina would: one slot, planted after the first epoch."""

    def __init__(self, run_id: str = "run1") -> None:
        self.run_id = run_id
        self.events: list[Event] = []
        self.listeners: list[Callable[[Event], None]] = []
        self.stage = SeedStage.DORMANT

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        if listener not in self.listeners:
            self.listeners.append(listener)
            for event in self.events:
                listener(event)

    def emit(self, event: Event) -> None:
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    def on_fit_start(self, trainer, pl_module):
        self.emit(
            RunStarted(
                run_id=self.run_id,
                slots=("net.0",),
                host_parameters=20,
                max_epochs=trainer.max_epochs,
                versions={},
            )
        )

    def on_train_epoch_end(self, trainer, pl_module):
        epoch = trainer.current_epoch
        self.emit(
            SystemState(
                run_id=self.run_id,
                epoch=epoch,
                max_epochs=trainer.max_epochs,
                global_step=trainer.global_step,
                steps_per_epoch=NUM_BATCHES,
                objective=Objective(name="val/loss", value=0.5),
                metrics={"val/loss": 0.5, "val/acc": 0.75},
                slots=(SeedState(slot="net.0", stage=self.stage),),
                host_parameters=20,
                num_parameters=20 if self.stage is SeedStage.DORMANT else 30,
            )
        )
        if self.stage is SeedStage.DORMANT:
            self.emit(
                StageChanged(
                    run_id=self.run_id,
                    epoch=epoch,
                    step=trainer.global_step,
                    slot="net.0",
                    before=self.stage,
                    after=SeedStage.GERMINATED,
                    blueprint="lowrank",
                    reason="the loss [is] flat",
                )
            )
            self.stage = SeedStage.GERMINATED

    def on_fit_end(self, trainer, pl_module):
        self._end(trainer, "finished")

    def on_exception(self, trainer, pl_module, exception):
        if trainer.training:
            self._end(trainer, f"failed: {exception}")

    def _end(self, trainer: Trainer, outcome: str) -> None:
        self.emit(
            RunEnded(
                run_id=self.run_id,
                epoch=trainer.current_epoch,
                step=trainer.global_step,
                outcome=outcome,
            )
        )


def trainer(tmp_path, *callbacks: Callback, **options) -> Trainer:
    known = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": any(hasattr(callback, "is_enabled") for callback in callbacks),
        "default_root_dir": tmp_path,
        "callbacks": list(callbacks),
    }
    return Trainer(**(known | options))


def stand_in(monkeypatch: pytest.MonkeyPatch, run_id: str = "run1") -> FakeKasmina:
    """A stand-in that every observer finds."""
    fake = FakeKasmina(run_id)
    for module in ("journal", "live_table", "growth_figure", "logger_events"):
        monkeypatch.setattr(f"esper_lightning.callbacks.{module}.find", lambda trainer: fake)
    return fake
