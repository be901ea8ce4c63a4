"""Runs in folders: their journals are read while they grow."""

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from esper_lightning.leyline import DecodeError, Event, InvalidArgument, RunSummary, decode
from esper_lightning.nissa.journal import JOURNAL_NAME
from esper_lightning.nissa.server.sources import STALE_S, Card, News

log = logging.getLogger(__name__)

SUMMARY_NAME = "summary.json"
"""Of a run's summary, beside its journal."""

MAX_RUNS = 500
"""Runs that are listed, the latest ones."""

MAX_DEPTH = 5
"""Folders below a root in which a run is looked for: date, time, job, and some."""

MAX_FOLDERS = 20_000
"""Folders that one look goes through."""

CHUNK_BYTES = 4 * 2**20
"""Of a journal that one reading takes: the size of the largest record."""

LOOK_S = 2.0
"""Seconds between two looks for new runs."""


class JournalTail:
    """Reads a journal as it grows.

    A line that is not complete waits. One that is damaged is left out and counted. A journal that
    was replaced, is shorter than it was, or has no line's end where one was read, is read anew.

    Args:
        path: the file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0
        self._skips = False

    def read(self) -> News:
        """The events of the next lines, of 4 MiB at most."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                anew = self._inode != 0 and (
                    status.st_ino != self._inode
                    or status.st_size < self._offset
                    or not self._is_at_a_line(file)
                )
                if anew:
                    self._offset, self._skips = 0, False
                self._inode = status.st_ino
                file.seek(self._offset)
                data = file.read(CHUNK_BYTES)
        except OSError:
            return News()
        lines, whole, rest = data.rpartition(b"\n")
        if not whole and len(data) == CHUNK_BYTES:
            self._offset += len(data)  # no record is as long: leave the line out
            damaged = 0 if self._skips else 1
            self._skips = True
            return News(anew=anew, damaged=damaged, more=True)
        self._offset += len(lines) + len(whole)
        events, damaged = self._events(lines.split(b"\n") if whole else [])
        more = len(data) == CHUNK_BYTES and bool(rest or whole)
        return News(events=tuple(events), anew=anew, damaged=damaged, more=more)

    def _is_at_a_line(self, file: BinaryIO) -> bool:
        if self._offset == 0 or self._skips:
            return True
        file.seek(self._offset - 1)
        return file.read(1) == b"\n"

    def _events(self, lines: list[bytes]) -> tuple[list[Event], int]:
        if lines and self._skips:
            lines, self._skips = lines[1:], False
        events: list[Event] = []
        damaged = 0
        for line in lines:
            if not line:
                continue
            try:
                events.append(decode(line, Event, what=str(self.path)))
            except DecodeError as error:
                damaged += 1
                log.debug("%s", error)
        return events, damaged


class FolderSource:
    """The runs below some folders.

    Args:
        roots: the folders; one that is not there yet may come. Links to folders are not followed.
        clock: Unix seconds.

    Raises:
        InvalidArgument: no folder is named.
    """

    def __init__(self, roots: Sequence[Path], *, clock: Callable[[], float] = time.time) -> None:
        if not roots:
            raise InvalidArgument("name at least one folder in which runs are, got none")
        self.roots = tuple(Path(root).expanduser().resolve() for root in roots)
        self._clock = clock
        self._looked = float("-inf")
        self._folders: dict[str, Path] = {}
        self._summaries: dict[str, tuple[float, RunSummary | None]] = {}
        self._tails: dict[str, JournalTail] = {}

    def cards(self) -> list[Card]:
        """The runs that are there now, the latest first; new ones are looked for every 2 s."""
        now = self._clock()
        if not 0 <= now - self._looked < LOOK_S:  # the clock may have been set back
            self._looked = now
            self._look()
        cards = [card for key, path in self._folders.items() if (card := self._card(key, path))]
        return sorted(cards, key=lambda card: (-card.updated, card.id))

    def read(self, run: str) -> News:
        """What a run's journal has more than at the last reading."""
        folder = self._folders.get(run)
        if folder is None:
            return News()
        if run not in self._tails:
            self._tails[run] = JournalTail(folder / JOURNAL_NAME)
        return self._tails[run].read()

    def forget(self, run: str) -> bool:
        """Begin anew at the next reading."""
        self._tails.pop(run, None)
        return True

    def _look(self) -> None:
        found: dict[Path, float] = {}
        for root in self.roots:
            for folder in _folders(root):
                changed = _changed(folder / JOURNAL_NAME)
                if changed is not None:
                    found[folder] = changed
        latest = sorted(found, key=lambda folder: -found[folder])[:MAX_RUNS]
        self._folders = {_key(folder): folder for folder in latest}
        self._summaries = {k: v for k, v in self._summaries.items() if k in self._folders}

    def _card(self, key: str, folder: Path) -> Card | None:
        changed = _changed(folder / JOURNAL_NAME)
        if changed is None:
            return None
        summary = self._summary(key, folder / SUMMARY_NAME)
        # A run that goes on after a summary writes its journal again.
        is_over = summary is not None and self._summaries[key][0] >= changed - LOOK_S
        return Card(
            id=key,
            name=self._name(folder),
            source="folder",
            updated=changed,
            live=not is_over and self._clock() - changed < STALE_S,
            summary=summary,
        )

    def _name(self, folder: Path) -> str:
        for root in self.roots:
            if folder.is_relative_to(root):
                name = str(folder.relative_to(root))
                return root.name if name == "." else name
        return folder.name

    def _summary(self, key: str, path: Path) -> RunSummary | None:
        changed = _changed(path)
        if changed is None:
            self._summaries.pop(key, None)
            return None
        known = self._summaries.get(key)
        if known is None or known[0] != changed:
            try:
                with path.open("rb") as file:
                    data = file.read(CHUNK_BYTES + 1)  # one byte too many is refused as too long
                summary: RunSummary | None = decode(data, RunSummary, what=str(path))
            except (DecodeError, OSError) as error:
                log.warning("a summary was left out: %s", error)
                summary = None
            self._summaries[key] = (changed, summary)
        return self._summaries[key][1]


def _key(folder: Path) -> str:
    """An id that says nothing of where the folder is, and is the same tomorrow."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:12]


def _changed(path: Path) -> float | None:
    """When a file was changed; None where there is none, or a pipe, whose reader waits."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime if stat.S_ISREG(status.st_mode) else None


def _folders(root: Path) -> Iterator[Path]:
    """``root`` and what is below it, without links and hidden folders, nearest first."""
    level = [root]
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Path] = []
        for folder in level:
            seen += 1
            if seen > MAX_FOLDERS:
                return
            yield folder
            try:
                with os.scandir(folder) as entries:
                    deeper += sorted(
                        Path(entry.path)
                        for entry in entries
                        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                    )
            except OSError:
                continue
        level = deeper
