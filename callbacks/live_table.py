"""The callback that shows a run in the terminal."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from esper_lightning.callbacks.found import find
from esper_lightning.leyline import Event, InvalidArgument
from esper_lightning.leyline.arguments import check_number
from esper_lightning.nissa.board import BatchCount, Board
from esper_lightning.nissa.plain_line import plain_line
from esper_lightning.nissa.screen import Screen


class LiveTable(ProgressBar):
    """Observes only: a live table of the slots, with the progress of epochs and batches below it.

    Takes the place of Lightning's progress bar. A step only counts; drawing happens in a thread of
    its own. Metrics are those of the last epoch boundary. Where the output is not a terminal, it
    prints one line for each epoch and each stage change instead.

    Args:
        refresh_hz: redraws a second, at most.

    Raises:
        InvalidArgument: ``refresh_hz`` is not positive.
    """

    def __init__(self, refresh_hz: float = 4.0) -> None:
        super().__init__()
        check_number("refresh_hz", refresh_hz)
        if not refresh_hz > 0:
            raise InvalidArgument(f"refresh_hz must be positive, got {refresh_hz}")
        self._board = Board()
        self._screen = Screen(self._board, refresh_hz=refresh_hz)
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Whether anything is shown; Lightning asks before it prints."""
        return self._enabled

    def enable(self) -> None:
        """Show again, from the next phase on."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this on all ranks but the first, and while it tunes."""
        self._enabled = False
        self._screen.stop()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the run."""
        super().setup(trainer, pl_module, stage)
        self._board.fitting = stage == "fit"
        self._board.evaluation = None
        if stage == "fit":
            find(trainer).subscribe(self._see)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        self._screen.stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._screen.stop()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the view of a fit."""
        open_ended = trainer.max_epochs is None or trainer.max_epochs < 0
        self._board.max_epochs = None if open_ended else trainer.max_epochs
        self._board.start_clock(trainer.current_epoch)
        self._show()

    on_sanity_check_start = on_train_start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin another epoch."""
        self._board.epoch = trainer.current_epoch
        self._board.training = BatchCount("train", self.total_train_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        self._board.training.done = batch_idx + 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw once more and stop."""
        self._screen.stop()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the pass over the validation data."""
        if trainer.sanity_checking:
            self._evaluate("check", trainer.num_sanity_val_batches)
        else:
            self._evaluate("validate", trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the pass over the test data."""
        self._evaluate("test", trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the pass over the data to predict."""
        self._evaluate("predict", trainer.num_predict_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count."""
        if self._board.evaluation is not None:
            self._board.evaluation.done += 1

    on_test_batch_end = on_validation_batch_end
    on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the batches of the epoch, or stop when there is no fit."""
        if self._board.fitting:
            self._board.evaluation = None
        else:
            self._screen.stop()

    on_test_end = on_validation_end
    on_predict_end = on_validation_end

    def _see(self, event: Event) -> None:
        self._board.see(event)
        line = plain_line(event)
        if self._enabled and line is not None:
            self._screen.line(line)

    def _show(self) -> None:
        if self._enabled:
            self._screen.start()

    def _evaluate(self, phase: str, num_batches: list[int | float]) -> None:
        self._board.evaluation = BatchCount(phase, sum(num_batches))
        self._show()
