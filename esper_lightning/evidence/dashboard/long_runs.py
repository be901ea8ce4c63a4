"""A recorded run, made longer, and written as a live one is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from esper_lightning.leyline import (
    Event,
    FieldReport,
    RunEnded,
    RunStarted,
    SeedStage,
    StageChanged,
    SystemState,
    encode,
)
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal


def epochs_of(run: Path, num: int, *, run_id: str = "") -> Iterator[list[Event]]:
    """The events of a run, epoch by epoch, again and again until there are ``num``.

    Each epoch ends with what was decided at its boundary, and the first one begins with the run's
    start. Its end is left out: it is still live.

    Args:
        run: folder of a finished run.
        num: epochs.
        run_id: of the run that they tell; empty keeps the recorded one's.
    """
    recorded = read_journal(run / JOURNAL_NAME)
    length = max(event.epoch for event in recorded if isinstance(event, SystemState)) + 1
    by_epoch: list[list[Event]] = [[] for _ in range(length)]
    opening: list[Event] = []
    for event in recorded:
        if isinstance(event, RunStarted) or _is_first_move(event):
            opening.append(event)
        elif not isinstance(event, RunEnded):
            by_epoch[min(_epoch(event), length - 1)].append(event)
    for number in range(num):
        events = [_moved(e, number - number % length, num) for e in by_epoch[number % length]]
        told = [*opening, *events] if number == 0 else events
        yield [replace(event, run_id=run_id or event.run_id) for event in told]


def write(folder: Path, epochs: Sequence[Sequence[Event]]) -> None:
    """Append these epochs to the journal in ``folder``, without a look at what it has."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / JOURNAL_NAME).open("ab") as file:
        file.write(b"".join(encode(event) + b"\n" for events in epochs for event in events))


def _is_first_move(event: Event) -> bool:
    return isinstance(event, StageChanged) and event.before is SeedStage.UNKNOWN


def _epoch(event: Event) -> int:
    if isinstance(event, FieldReport):
        return event.last_epoch
    assert not isinstance(event, RunStarted)
    return max(0, event.epoch)


def _moved(event: Event, by: int, max_epochs: int) -> Event:
    if isinstance(event, FieldReport):
        return replace(event, first_epoch=event.first_epoch + by, last_epoch=event.last_epoch + by)
    assert not isinstance(event, RunStarted)
    if isinstance(event, SystemState):
        return replace(event, epoch=event.epoch + by, max_epochs=max_epochs)
    return replace(event, epoch=event.epoch + by)
