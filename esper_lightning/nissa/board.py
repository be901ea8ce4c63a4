"""The live view of a run: the table of slots above, the progress of epochs and batches below."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from esper_lightning.leyline import Event, RunStarted, StageChanged, SystemState
from esper_lightning.nissa.plain_line import metrics_text
from esper_lightning.nissa.quantities import duration
from esper_lightning.nissa.slot_table import slot_table


@dataclass(slots=True)
class BatchCount:
    """Batches of one pass over some data.

    Attributes:
        phase: what the batches are for: ``train``, ``validate``, ``test``, ``predict``, ``check``.
        total: how many there are; infinite or 0 when nobody knows.
        done: how many are over.
    """

    phase: str
    total: float = 0
    done: int = 0

    @property
    def share(self) -> float | None:
        """Part that is done, 0 to 1; None when the total is not known."""
        return self.done / self.total if 0 < self.total < math.inf else None


@dataclass(slots=True, kw_only=True)
class Board:
    """What is known of a run at this moment. Drawn by rich, from any thread.

    The training thread sets plain numbers and hands over events; drawing only reads them, each at
    most once, so that a refresh in another thread needs no lock.

    Attributes:
        fitting: whether a fit is under way; otherwise only the batches are shown.
        epoch: 0-based epoch under way.
        max_epochs: None when the run is open-ended.
        training: batches of this epoch.
        evaluation: batches of the validation, test or prediction under way, if any.
        clock: seconds from an arbitrary start.
    """

    fitting: bool = False
    epoch: int = 0
    max_epochs: int | None = None
    training: BatchCount = field(default_factory=lambda: BatchCount("train"))
    evaluation: BatchCount | None = None
    clock: Callable[[], float] = time.monotonic
    _started: RunStarted | None = None
    _state: SystemState | None = None
    _changes: dict[str, StageChanged] = field(default_factory=dict)
    _start_s: float = 0.0
    _start_epoch: int = 0

    def see(self, event: Event) -> None:
        """Take in what happened. A new run forgets the one before."""
        if isinstance(event, RunStarted):
            if self._started is None or self._started.run_id != event.run_id:
                self._state, self._changes = None, {}
            self._started = event
        elif isinstance(event, SystemState):
            self._state, self._changes = event, {}
        elif isinstance(event, StageChanged):
            self._changes[event.slot] = event

    def start_clock(self, epoch: int) -> None:
        """Count elapsed and remaining time from now on; ``epoch`` is where the run begins."""
        self._start_s = self.clock()
        self._start_epoch = self.epoch = epoch

    def __rich__(self) -> RenderableType:
        progress = Table.grid(padding=(0, 1), expand=True)
        progress.add_column(min_width=8, no_wrap=True)
        progress.add_column(ratio=1)
        progress.add_column(justify="right", no_wrap=True)
        progress.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        batches = self.evaluation or self.training
        if not self.fitting:
            progress.add_row(batches.phase, *_batches(batches), "")
            return progress
        state = self._state
        metrics = metrics_text(state, objective=False) if state is not None else ""
        progress.add_row("epoch", *self._epochs(), Text(self._times(), style="dim"))
        progress.add_row(batches.phase, *_batches(batches), Text(metrics))
        table = slot_table(state, started=self._started, changes=self._changes)
        return Group(table, Text(""), progress)

    def _epochs(self) -> tuple[RenderableType, Text]:
        if self.max_epochs is None:
            return Text(""), Text(str(self.epoch + 1))
        current = min(self.epoch + 1, self.max_epochs)
        return (
            ProgressBar(total=self.max_epochs, completed=self._epochs_done()),
            Text(f"{current}/{self.max_epochs}"),
        )

    def _epochs_done(self) -> float:
        state = self._state
        if state is not None and state.epoch >= self.epoch:
            return state.epoch + 1
        return self.epoch + (self.training.share or 0.0)

    def _times(self) -> str:
        elapsed = self.clock() - self._start_s
        text = f"{duration(elapsed)} elapsed"
        done = self._epochs_done() - self._start_epoch
        if self.max_epochs is not None and 0 < done < self.max_epochs - self._start_epoch:
            left = (self.max_epochs - self._start_epoch) / done * elapsed - elapsed
            text += f", {duration(left)} left"
        return text


def _batches(count: BatchCount) -> tuple[RenderableType, Text]:
    if count.share is None:
        return Text(""), Text(str(count.done))
    return (
        ProgressBar(total=count.total, completed=count.done),
        Text(f"{count.done}/{count.total:.0f}"),
    )
