"""Running the loss on a training step's batch once more."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from esper_lightning.callbacks.batches import num_rows
from esper_lightning.kasmina import SecondPasses
from esper_lightning.leyline import InvalidArgument

ModuleLoss = Callable[[Any, Any], Tensor]
"""``fn(module, batch) -> loss``: what ``training_step`` minimises, without logging anything."""


class BatchAgain:
    """The second passes of a training step, under the step's own precision and scale.

    Args:
        loss: of a module on a batch.
        passes: what to run.
    """

    def __init__(self, loss: ModuleLoss, passes: SecondPasses) -> None:
        self.passes = passes
        self._loss = loss
        self._kept: tuple[Any, int] | None = None
        self._before: list[tuple[nn.Parameter, int]] = []

    def keep(self, module: LightningModule, batch: Any, *, epoch: int, index: int) -> None:
        """Before a step: hold its batch where a second pass is due. A step may empty its dict."""
        due = self.passes.are_due(epoch=epoch, batch=index)
        self._kept = (tree_map(lambda leaf: leaf, batch), index) if due else None
        self._before = [(p, p._version) for p in module.parameters()] if due else []

    def run(self, trainer: Trainer, module: LightningModule, topology: Hashable) -> None:
        """After the step's backward pass.

        Raises:
            InvalidArgument: the loss is not a tensor of one element with a gradient.
        """
        if self._kept is None:
            return
        (batch, index), self._kept = self._kept, None
        trainable = _num_trainable(module)

        def loss() -> Tensor:
            with trainer.precision_plugin.train_step_context():
                value = self._loss(module, batch)
            if (
                not isinstance(value, Tensor)
                or value.numel() != 1
                or (
                    # In a shadow pass the host is frozen, and may call none of the seeds' slots.
                    not value.requires_grad and _num_trainable(module) == trainable
                )
            ):
                told = value.shape if isinstance(value, Tensor) else type(value).__name__
                raise InvalidArgument(
                    f"Kasmina's loss(module, batch) returned {told}; it must return the loss that "
                    f"training_step minimises: a tensor of one element with a gradient"
                )
            return value.reshape(())

        written = [parameter for parameter, was in self._before if parameter._version != was]
        self._before = []
        with _put_back(written):
            self.passes.run(
                loss,
                epoch=trainer.current_epoch,
                batch=index,
                size=num_rows(batch),
                topology=topology,
                scale=_scale(trainer, module),
            )


@contextmanager
def _put_back(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Copies inside for parameters that a forward pass itself writes to (a teacher's average)."""
    held = [(parameter, parameter.data) for parameter in parameters]
    for parameter, data in held:
        parameter.data = data.clone()
    try:
        yield
    finally:
        for parameter, data in held:
            parameter.data = data


def _num_trainable(module: LightningModule) -> int:
    return sum(parameter.requires_grad for parameter in module.parameters())


def _scale(trainer: Trainer, module: LightningModule) -> Tensor:
    """What the step's own loss was multiplied by before its backward pass."""
    one = torch.ones((), device=module.device) / trainer.accumulate_grad_batches
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    scaled: Tensor = one if scaler is None else scaler.scale(one)
    return scaled
