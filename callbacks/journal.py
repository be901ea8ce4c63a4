"""The callback that keeps ``events.jsonl``."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks.found import find
from esper_lightning.leyline import Event, InvalidArgument, RunEnded
from esper_lightning.nissa.journal import JOURNAL_NAME, JournalWriter


class Journal(Callback):
    """Observes only: writes every event of the run to ``events.jsonl`` as it happens.

    Args:
        dirpath: folder of the file; None takes the Trainer's ``default_root_dir``.

    Raises:
        InvalidArgument: at the start of a fit, when the folder holds the journal of another run.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = dirpath
        self.path: Path | None = None
        self._writer: JournalWriter | None = None
        self._refused = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the run."""
        if stage == "fit" and trainer.is_global_zero:
            self.path = Path(self.dirpath or trainer.default_root_dir) / JOURNAL_NAME
            self._refused = False
            find(trainer).subscribe(self._write)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the file."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file; an event that still comes opens it again."""
        self._close()

    def _write(self, event: Event) -> None:
        assert self.path is not None
        if self._refused:
            return
        if self._writer is None:
            self._writer = JournalWriter(self.path)
        try:
            self._writer.write(event)
        except InvalidArgument:
            self._refused = True  # the run that fails by this still tells its end
            self._close()
            raise
        if isinstance(event, RunEnded):
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
