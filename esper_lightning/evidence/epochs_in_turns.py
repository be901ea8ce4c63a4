"""Two fits of one process that take turns, an epoch each: their clock, Trainer and data."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import Profiler
from torch import Tensor

from esper_lightning.evidence.turns import Turns
from esper_lightning.tolaria import TensorDataModule

SHAPE = (1, 28, 28)
"""Of one image."""


class EpochTimes(NamedTuple):
    """Seconds of every epoch but the first and the last.

    Attributes:
        wall: of its steps, its validation and the boundary behind it.
        steps: of its steps alone.
        cpu: of ``wall``, in which the thread that trains had a core.
        beside: of a core, that the other threads of the process used meanwhile.
    """

    wall: list[float]
    steps: list[float]
    cpu: list[float]
    beside: list[float]


def _nothing() -> None:
    pass


class EpochClock(Callback):
    """Observes only: times epochs, and lets the other side run between them.

    Each side draws the random numbers that it would draw alone.

    Args:
        name: of the side.
        turns: which sides there are.
        begin: called before each turn.
        end: called after it.
    """

    def __init__(
        self,
        name: str,
        turns: Turns,
        *,
        begin: Callable[[], object] = _nothing,
        end: Callable[[], object] = _nothing,
    ) -> None:
        self.times = EpochTimes([], [], [], [])
        self._name, self._turns = name, turns
        self._begin, self._end = begin, end
        self._since = (0.0, 0.0, 0.0)
        self._steps_s = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """A turn is from here to here: steps, validation and boundary."""
        wall, cpu, all_cpu = (b - a for a, b in zip(self._since, _now(), strict=True))
        if trainer.current_epoch > 1:  # the first one is a warm-up
            found = (wall, self._steps_s, cpu, all_cpu - cpu)
            for times, seconds in zip(self.times, found, strict=True):
                times.append(seconds)
        self._end()
        numbers = torch.get_rng_state()
        self._turns.pass_on(self._name)
        torch.set_rng_state(numbers)
        self._begin()
        self._since = _now()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """The end of the steps."""
        self._steps_s = time.perf_counter() - self._since[0]


def _now() -> tuple[float, float, float]:
    return time.perf_counter(), time.thread_time(), time.process_time()


def make_trainer(
    folder: Path, callbacks: Sequence[Callback], epochs: int, profiler: Profiler | None = None
) -> Trainer:
    """A Trainer as ``train.py`` has it: deterministic, a logger, the last and best checkpoint."""
    last = ModelCheckpoint(dirpath=folder / "last", enable_version_counter=False)
    best = ModelCheckpoint(dirpath=folder / "best", monitor="val/loss")
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        deterministic=True,  # else decisions depend on the clock, and so does what is trained
        default_root_dir=folder,
        logger=CSVLogger(folder),
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, last, best],
        profiler=profiler,
    )


def images(examples: int) -> TensorDataModule:
    """Random images and classes: what they hold does not change how long a step takes."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        drawn = torch.randn(count, *SHAPE, generator=generator)
        return drawn, torch.randint(0, 10, (count,), generator=generator)

    train, val, test = (draw(count) for count in (examples, examples // 6, 64))
    return TensorDataModule(train=train, val=val, test=test, batch_size=64)
