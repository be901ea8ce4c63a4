"""The LightningModule that trains a host, and whatever grows on it, to tell classes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics.classification import MulticlassAccuracy

from esper_lightning import karn
from esper_lightning.kasmina import BuildBranch, regraft
from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.tolaria.optimizer import check_weight_decay, host_groups
from esper_lightning.tolaria.schedule import (
    GroupwiseLR,
    HostPolicy,
    Newcomer,
    WarmupStableDecay,
)

METRICS = tuple(f"{split}/{what}" for split in ("train", "val", "test") for what in ("loss", "acc"))
"""What :class:`Tolaria` logs."""

MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]
"""From parameter groups to an optimiser: ``functools.partial(torch.optim.AdamW, lr=0.01)``."""


class Tolaria(LightningModule):
    """Trains a classifier with cross-entropy; logs loss and accuracy of each split.

    Logged are ``train/loss``, ``train/acc``, ``val/loss``, ``val/acc``, ``test/loss`` and
    ``test/acc``, each over the epoch. An input has one class, or each of its T positions has one:
    then both are means over positions, and the loss of a language model is in nats per token.

    Alone it is an ordinary module; with the callback ``Kasmina``
    it grows.

    A checkpoint of a grown network loads as any other:
    ``Tolaria.load_from_checkpoint(path, host=CNN(...), num_classes=10)``; with ``build=`` where it
    grew with a function of your own, ``Kasmina(build=...)``.

    Args:
        host: ``(B, ...)`` inputs to logits ``(B, num_classes)`` or ``(B, T, num_classes)``.
        num_classes: at least 2.
        optimizer: makes the optimiser from parameter groups; None is AdamW at 0.01.
        weight_decay: of matrices and kernels.
        schedule: learning rate policy of the host.
        newcomer: learning rate policy of seeds.
        build: how to build a named branch that a checkpoint holds.
    """

    def __init__(
        self,
        *,
        host: nn.Module,
        num_classes: int,
        optimizer: MakeOptimizer | None = None,
        weight_decay: float = 1e-4,
        schedule: HostPolicy | None = None,
        newcomer: Newcomer | None = None,
        build: BuildBranch = karn.build,
    ) -> None:
        super().__init__()
        check_whole("num_classes", num_classes, least=2)
        check_weight_decay(weight_decay)
        self.host = host
        self.weight_decay = weight_decay
        # One for each split: an epoch of validation lies within an epoch of training.
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self._optimizer = optimizer or _adamw
        self._schedule = schedule or WarmupStableDecay()
        self._newcomer = newcomer or Newcomer()
        self._build = build

    def forward(self, x: Tensor) -> Tensor:
        """Inputs to logits ``(B, num_classes)`` or ``(B, T, num_classes)``."""
        logits: Tensor = self.host(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Mean cross-entropy of a batch of inputs and class indices ``(B,)`` or ``(B, T)``."""
        return self._step("train", batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy on val."""
        self._step("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy on test."""
        self._step("test", batch)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of a batch; logs nothing and updates no metric."""
        return F.cross_entropy(*self._each(self._logits(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        """One optimiser, and one scheduler that owns every rate, stepped every optimiser step."""
        optimizer = self.make_optimizer()
        total_steps = self.trainer.estimated_stepping_batches
        if not isinstance(total_steps, int):
            raise InvalidArgument(
                "learning rates are planned over the whole run; set max_epochs or max_steps"
            )
        scheduler = GroupwiseLR(
            optimizer, total_steps=total_steps, host=self._schedule, newcomer=self._newcomer
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def make_optimizer(self) -> Optimizer:
        """The optimiser over the host's parameter groups.

        Raises:
            InvalidArgument: it does not take what it is given.
        """
        groups = host_groups(self.host, weight_decay=self.weight_decay)
        try:
            return self._optimizer(groups)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"the optimizer {_told(self._optimizer)} cannot be made: {error}; with train.py "
                f"its arguments are optimizer.lr=0.01 and so on"
            ) from error

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make place for what the checkpoint's network has grown."""
        regraft(self, checkpoint["state_dict"], build=self._build)

    def _step(self, split: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        logits, targets = self._each(self._logits(inputs), targets)
        loss = F.cross_entropy(logits, targets)
        accuracy = {
            "train": self.train_accuracy,
            "val": self.val_accuracy,
            "test": self.test_accuracy,
        }[split]
        accuracy(logits, targets)
        size = len(inputs)
        self.log(
            f"{split}/loss", loss, on_epoch=True, on_step=False, batch_size=size, sync_dist=True
        )
        self.log(f"{split}/acc", accuracy, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def _logits(self, inputs: Tensor) -> Tensor:
        logits = self.host(inputs)
        if not isinstance(logits, Tensor):
            raise InvalidArgument(
                f"host {type(self.host).__name__} returned {type(logits).__name__}; Tolaria needs "
                f"one tensor of logits (B, num_classes). Wrap the host, or use Kasmina with a "
                f"LightningModule of your own"
            )
        return logits

    def _each(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N, num_classes)`` and targets ``(N,)`` of all positions of all inputs."""
        if logits.ndim == 2:
            return logits, targets
        if logits.ndim != 3 or logits.shape[:2] != targets.shape:
            raise InvalidArgument(
                f"host {type(self.host).__name__} returned logits of shape {tuple(logits.shape)} "
                f"for targets of shape {tuple(targets.shape)}; Tolaria takes (B, num_classes) for "
                f"(B,), and (B, T, num_classes) for (B, T). Use Kasmina with a LightningModule of "
                f"your own for another task"
            )
        return logits.flatten(0, 1), targets.flatten()


def _told(make: MakeOptimizer) -> str:
    if not isinstance(make, partial):
        return repr(make)
    given = ", ".join(f"{name}={value!r}" for name, value in make.keywords.items())
    return f"{getattr(make.func, '__name__', make.func)}({given})"


def _adamw(groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.AdamW(groups, lr=0.01)
