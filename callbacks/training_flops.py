"""The callback that counts what a network without slots costs to train."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks.batches import num_rows
from esper_lightning.callbacks.costs import Costs
from esper_lightning.callbacks.fresh_metrics import TRAINING_FLOPS
from esper_lightning.callbacks.kasmina import Kasmina
from esper_lightning.callbacks.requirements import callbacks_of
from esper_lightning.kasmina import Ranks
from esper_lightning.leyline import InvalidArgument


class TrainingFlops(Callback):
    """Observes only: logs the training FLOPs of a network that does not grow.

    ``Kasmina`` logs the same metric, counted the same way, for one that does: this is the other
    side of the comparison. The first training step is counted (matrix products and convolutions,
    forward and backward; a multiply-add counts as two), the others are known by it and by their
    number of samples. Logged at the end of each epoch under the name :attr:`METRIC`.
    """

    METRIC = TRAINING_FLOPS

    def __init__(self) -> None:
        super().__init__()
        self.costs = Costs()
        self._stage = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to count what Kasmina counts already.

        Raises:
            InvalidArgument: there is a Kasmina beside it.
        """
        self._stage = stage
        if any(isinstance(callback, Kasmina) for callback in callbacks_of(trainer)):
            raise InvalidArgument("Kasmina counts training FLOPs already; leave TrainingFlops out")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or go on."""
        self.costs.begin_fit()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the operations of the first step."""
        self.costs.begin_step()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Know that the step was a whole one."""
        self.costs.meter.backward()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Bill the step."""
        self.costs.end_step(num_rows(batch))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what all ranks spent so far."""
        self.costs.settle(Ranks())
        pl_module.log(self.METRIC, self.costs.total, sync_dist=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop counting."""
        self.costs.meter.abort()

    def state_dict(self) -> dict[str, Any]:
        """What was spent so far; called on all ranks."""
        self.costs.settle(Ranks())
        return self.costs.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting; to evaluate a checkpoint rewinds no bill."""
        if self._stage == "fit":
            self.costs.load_state_dict(state_dict)
