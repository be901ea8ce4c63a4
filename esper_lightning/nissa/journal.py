"""``events.jsonl``: everything that happened in a run, one JSON record a line."""

import logging
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from esper_lightning.leyline import (
    Decision,
    DecodeError,
    Event,
    FieldReport,
    Intervention,
    InvalidArgument,
    PolicyChanged,
    RunStarted,
    StageChanged,
    SystemState,
    decode,
    encode,
)

log = logging.getLogger(__name__)

JOURNAL_NAME = "events.jsonl"
"""The journal's file name, beside the run's other results."""


def _decode_line(path: Path, number: int, line: bytes) -> Event:
    event: Event = decode(line, Event, what=f"{path}, line {number}")
    return event


def _split(path: Path, data: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines of a journal, and the part of a line that a killed run left behind."""
    lines = data.split(b"\n")
    last = lines.pop()
    if last:
        try:
            _decode_line(path, len(lines) + 1, last)
        except DecodeError:
            return lines, last
        lines.append(last)
    return lines, b""


def read_journal(path: Path | str) -> list[Event]:
    """The events of a journal, in the order in which they happened.

    The last line of a killed run may be incomplete: it is dropped and logged.

    Raises:
        DecodeError: another line is damaged; the text names file, line number and field.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    lines, torn = _split(path, path.read_bytes())
    if torn:
        log.warning("%s, line %d is incomplete and was dropped", path, len(lines) + 1)
    return [_decode_line(path, number, line) for number, line in enumerate(lines, start=1)]


class JournalWriter:
    """Appends events to the journal of one run.

    An existing journal of the same run is continued (a run that was resumed); an incomplete last
    line is cut off first. The run is the one of the first line, or of the first event written.

    Args:
        path: the file; its folder is made.

    Raises:
        DecodeError: the first line of an existing journal is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._run_id: str | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._continue()
        self._file = self.path.open("ab")

    def _continue(self) -> None:
        data = self.path.read_bytes()
        lines, torn = _split(self.path, data)
        if lines:
            self._run_id = _decode_line(self.path, 1, lines[0]).run_id
        if torn:
            log.warning("%s, line %d is incomplete and was cut off", self.path, len(lines) + 1)
            with self.path.open("r+b") as file:
                file.truncate(len(data) - len(torn))
        elif data and not data.endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(b"\n")

    def write(self, *events: Event) -> None:
        """Append ``events`` and hand them to the operating system before returning.

        Raises:
            InvalidArgument: an event is of another run than the journal; nothing was written.
        """
        run_id = self._run_id
        for event in events:
            run_id = run_id or event.run_id
            if event.run_id != run_id:
                raise InvalidArgument(
                    f"{self.path} is the journal of run {run_id!r}, got an event of run "
                    f"{event.run_id!r}; give every run a directory of its own, or move the old "
                    "journal away"
                )
        self._run_id = run_id
        self._file.write(b"".join(encode(event) + b"\n" for event in events))
        self._file.flush()

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def timeline(events: Iterable[Event]) -> list[Event]:
    """The events of one run as one line of time.

    A run that was resumed from a checkpoint writes :class:`RunStarted` again and then repeats the
    epochs that the checkpoint had not seen; what it did the second time replaces what it had done
    the first time. A start that never reached an epoch's end replaces nothing.

    Returns:
        Events whose epochs never fall, with the first ``RunStarted`` and the last ``RunEnded``.
    """
    starts: list[list[Event]] = []
    for event in events:
        if isinstance(event, RunStarted) or not starts:
            starts.append([])
        starts[-1].append(event)
    kept: list[Event] = []
    for number, start in enumerate(starts):
        first = next((e.epoch for e in start if isinstance(e, SystemState)), None)
        if number == 0:
            kept = start
        elif first is not None:
            kept = [e for e in kept if isinstance(e, RunStarted) or _before(e, first)]
            kept += [e for e in start[1:] if not _before(e, first)]
    return kept


def _before(event: Event, epoch: int) -> bool:
    if isinstance(event, FieldReport):  # made at the boundary at which its window ended
        return event.last_epoch < epoch
    return (
        isinstance(event, StageChanged | Decision | SystemState | Intervention | PolicyChanged)
        and event.epoch < epoch
    )
