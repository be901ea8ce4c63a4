"""The callback that tells the loggers what happened to the network."""

from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.logger_entries import entries_of, send
from esper_lightning.leyline import Event, RunEnded, StageChanged

KEY = "growth_events"
COLUMNS = ("epoch", "step", "slot", "before", "after", "blueprint", "reason")


class LoggerEvents(Callback):
    """Observes only: hands every change of a slot's stage to the loggers that take text.

    TensorBoard, Comet, Neptune and Aim get text at the step at which it happened, one for each
    boundary (a second one at the same step would replace the first), Weights & Biases and MLflow a
    table at the end of the fit. A logger that fails costs a warning, not the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trainer: Trainer | None = None
        self._changes: list[StageChanged] = []
        self._unsent: list[StageChanged] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the run."""
        if stage == "fit" and trainer.is_global_zero:
            self._trainer = trainer
            find(trainer).subscribe(self._see)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The boundary is over: tell what happened at it."""
        self._send_text()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the Trainer."""
        self._trainer = None

    def _see(self, event: Event) -> None:
        if isinstance(event, StageChanged):
            self._changes.append(event)
            self._unsent.append(event)
        elif isinstance(event, RunEnded):
            self._send_text()
            self._send_table()

    def _send_text(self) -> None:
        changes, self._unsent = self._unsent, []
        if self._trainer is None or not changes:
            return
        # Two spaces: a new line in Markdown, which TensorBoard renders.
        text = "  \n".join(f"epoch {change.epoch + 1}: {change}" for change in changes)
        for logger in self._trainer.loggers:
            send(logger, "text", entries_of(logger).text, KEY, text, changes[-1].step)

    def _send_table(self) -> None:
        if self._trainer is None or not self._changes:
            return
        rows = [_row(change) for change in self._changes]
        for logger in self._trainer.loggers:
            send(logger, "a table", entries_of(logger).table, KEY, COLUMNS, rows)


def _row(change: StageChanged) -> tuple[int, int, str, str, str, str, str]:
    return (
        change.epoch,
        change.step,
        change.slot,
        change.before.name,
        change.after.name,
        change.blueprint,
        change.reason,
    )
