"""Mission control for tests: in a thread, on a port of its own, and the runs it shows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from starlette.applications import Starlette

from esper_lightning.leyline import Event
from esper_lightning.nissa.journal import JOURNAL_NAME, JournalWriter
from esper_lightning.nissa.server import Serving

TOKEN = "a-token-for-tests-only"


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The address at which ``app`` answers."""
    with Serving(app) as serving:
        yield serving.address


def write_run(folder: Path, events: Sequence[Event]) -> Path:
    """A run's journal in ``folder``."""
    with JournalWriter(folder / JOURNAL_NAME) as journal:
        journal.write(*events)
    return folder
