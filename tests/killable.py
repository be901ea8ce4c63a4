"""A run that may be killed at any moment and started again, for a process of its own."""

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import nn

from esper_lightning.callbacks import DurableCheckpointIO, Kasmina, Tamiyo
from esper_lightning.kasmina import GateRules, LifecycleRules
from esper_lightning.leyline import BlendSchedule, CommandKind, SystemState
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tolaria import TensorDataModule, Tolaria

EPOCHS = 12
STEPS = 6
RULES = LifecycleRules(
    blend=BlendSchedule(num_steps=8),
    gates=GateRules(
        price_per_parameter=0.0, price_per_flop=0.0, max_regression=1e9, max_output_ratio=1e9
    ),
)


class Planted(Policy):
    """A seed in each of two slots; one becomes permanent, the other is culled."""

    name = "planted"

    def decide(self, state: SystemState) -> list[Choice]:
        told: dict[int, tuple[CommandKind, str, str]] = {
            1: (CommandKind.GERMINATE, "0", "parallel_mlp"),
            2: (CommandKind.GERMINATE, "3", "gated_mlp"),
            8: (CommandKind.CULL, "3", ""),
            9: (CommandKind.FOSSILIZE, "0", ""),
        }
        if state.epoch not in told:
            return [Choice(kind=CommandKind.NOOP, reason="as told")]
        kind, slot, blueprint = told[state.epoch]
        parameters = {"expansion": 2.0} if blueprint else {}
        return [
            Choice(
                kind=kind, slot=slot, blueprint=blueprint, parameters=parameters, reason="as told"
            )
        ]


class SavesWithin(Checkpoint):
    """Saves in the middle of every epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == STEPS // 2:
            trainer.save_checkpoint(self.path)


def data() -> TensorDataModule:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8 * STEPS + 16, 5, generator=generator)
    y = (x[:, :3] + x[:, 1:4]).argmax(1)
    cut = 8 * STEPS
    return TensorDataModule(
        train=(x[:cut].clone(), y[:cut]),
        val=(x[cut:].clone(), y[cut:]),
        test=(x[:4].clone(), y[:4]),
        batch_size=8,
    )


def train_until(folder: Path, point: str, number: int) -> None:
    """Train, and be killed the ``number``-th time that ``point`` of writing a file is reached.

    Args:
        folder: of the run.
        point: ``save``, half of a checkpoint's bytes are written; ``fsync`` or ``replace``, the
            function of ``os`` is about to run.
        number: counted from 1.
    """
    module = torch if point == "save" else os
    original, left = getattr(module, point), [number]

    def deadly(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] > 0:
            return original(*args, **kwargs)
        if point == "save":  # half of the file is written
            file = args[1]
            original(*args, **kwargs)
            file.flush()
            file.truncate(file.tell() // 2)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a process that was killed went on")

    setattr(module, point, deadly)
    train(folder)


def train(folder: Path) -> None:
    """Train to the end, from the folder's checkpoint if there is one; leave ``final.pt``."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    host = nn.Sequential(
        *(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)),
    )
    model = Tolaria(host=host, num_classes=3)
    checkpoint = folder / "last.ckpt"
    at_ends = ModelCheckpoint(
        dirpath=folder,
        filename="last",
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    trainer = Trainer(
        accelerator="cpu",
        deterministic=True,  # without it risk looks at the clock, and so do decisions
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[DurableCheckpointIO()],
        callbacks=[
            Kasmina(slots=["0", "3"], incubation="straight_through", rules=RULES),
            Tamiyo(policy=Planted()),
            SavesWithin(checkpoint),
            at_ends,
        ],
    )
    trainer.fit(model, datamodule=data(), ckpt_path=checkpoint if checkpoint.exists() else None)
    torch.save(
        {
            "weights": model.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "random": torch.get_rng_state(),
        },
        folder / "final.pt",
    )
