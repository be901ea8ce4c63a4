"""The callback that draws the growth figure."""

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.logger_entries import entries_of, send
from esper_lightning.leyline import DecodeError, Event, RunEnded, SystemState
from esper_lightning.nissa.growth_figure import save_growth_figure
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal

log = logging.getLogger(__name__)


class GrowthFigure(Callback):
    """Observes only: draws the growth figure at the end of a fit, one that failed included.

    Writes ``growth.png`` and ``growth.svg`` and hands the picture to the loggers that take one; one
    that fails costs a warning, not the run. Where the folder holds the journal of the same run (a
    run that was resumed), the epochs before are drawn too. Without a finished epoch there is no
    figure.

    Args:
        dirpath: folder of the files; None takes the Trainer's ``default_root_dir``.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = dirpath
        self._trainer: Trainer | None = None
        self._events: list[Event] = []
        self._drawn = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the run."""
        if stage == "fit" and trainer.is_global_zero:
            self._trainer = trainer
            find(trainer).subscribe(self._see)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Draw what there is of a fit that broke off."""
        self._draw()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the Trainer."""
        self._trainer = None

    def _see(self, event: Event) -> None:
        if self._events and self._events[0].run_id != event.run_id:
            self._events = []
        self._events.append(event)
        self._drawn = False
        if isinstance(event, RunEnded):
            self._draw()

    def _draw(self) -> None:
        seen = any(isinstance(event, SystemState) for event in self._events)
        if self._trainer is None or self._drawn or not seen:
            return
        self._drawn = True
        directory = Path(self.dirpath or self._trainer.default_root_dir)
        events = self._earlier(directory / JOURNAL_NAME) + self._events
        png, _ = save_growth_figure(events, directory)
        step = self._trainer.global_step
        for logger in self._trainer.loggers:
            send(logger, "the growth figure", entries_of(logger).picture, "growth", png, step)

    def _earlier(self, journal: Path) -> list[Event]:
        """What the journal tells of this run; what was seen here replaces it where both speak."""
        if not journal.exists():
            return []
        try:
            events = read_journal(journal)
        except DecodeError as error:
            log.warning("the growth figure begins with this process: %s", error)
            return []
        return events if events and events[0].run_id == self._events[0].run_id else []
