"""Training several modules in one process, in turns of a few steps, and timing each turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from esper_lightning.evidence.turns import Turns


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """How long everything is trained.

    Attributes:
        epochs: the first is a warm-up and not timed.
        steps: of an epoch.
        block: steps of one turn. The last turn of an epoch, which holds its end, is not timed.
        batch_size: of a step.
    """

    epochs: int = 4
    steps: int = 60
    block: int = 5
    batch_size: int = 16


class Classifier(LightningModule):
    """An ordinary module: cross-entropy, AdamW, its mean loss logged as ``loss``.

    Args:
        net: ``(B, ...)`` to logits.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Mean cross-entropy."""
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW over what can train."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3)


@dataclass(kw_only=True, slots=True)
class Arm:
    """One of the modules, and what its Trainer has beside it."""

    net: Callable[[], nn.Module]
    callbacks: Callable[[], Sequence[Callback]] = field(default=tuple)


class StepTimes(NamedTuple):
    """Seconds of one training step, one figure a turn.

    Attributes:
        wall: by the clock on the wall.
        cpu: that the thread was computing; the rest it waited for a core that others used.
    """

    wall: list[float]
    cpu: list[float]


class _Clock(Callback):
    """Observes only: times blocks of steps, and lets the other arms run between them."""

    def __init__(self, name: str, turns: Turns, length: Length, accelerator: str) -> None:
        self._waits = accelerator == "cuda"
        self.times = StepTimes([], [])
        self._name, self._turns, self._length = name, turns, length
        self._since: tuple[float, float] | None = None

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """A turn begins and ends before everything else that belongs to a step."""
        if batch_idx % self._length.block:
            return
        now = self._now()
        if self._since is not None and batch_idx > 0 and trainer.current_epoch > 0:
            for times, before, after in zip(self.times, self._since, now, strict=True):
                times.append((after - before) / self._length.block)
        self._turns.pass_on(self._name)
        self._since = self._now()

    def _now(self) -> tuple[float, float]:
        if self._waits:
            torch.cuda.synchronize()
        return time.perf_counter(), time.thread_time()


def step_times(
    arms: Mapping[str, Arm],
    examples: tuple[Tensor, Tensor],
    *,
    length: Length,
    accelerator: str = "cpu",
) -> dict[str, StepTimes]:
    """How long a training step takes, by arm; equal positions were measured side by side.

    Args:
        arms: by name; all are trained on the same batches.
        examples: inputs and class indices, at least ``steps * batch_size`` of them.
        length: of the training.
        accelerator: ``cpu`` or ``cuda``; a turn on the latter ends when the device has.
    """
    turns = Turns(list(arms))
    clocks = {name: _Clock(name, turns, length, accelerator) for name in arms}

    def trained(name: str) -> Callable[[], None]:
        def train() -> None:
            torch.set_num_threads(1)  # the setting belongs to the thread
            torch.manual_seed(0)
            data = TensorDataset(*examples)
            trainer = Trainer(
                accelerator=accelerator,
                devices=1,
                max_epochs=length.epochs,
                limit_train_batches=length.steps,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[clocks[name], *arms[name].callbacks()],
            )
            trainer.fit(Classifier(arms[name].net()), DataLoader(data, length.batch_size))

        return train

    turns.run({name: trained(name) for name in arms})
    return {name: clock.times for name, clock in clocks.items()}
