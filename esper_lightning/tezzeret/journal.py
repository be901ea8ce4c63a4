"""What was tried, line by line on disk, so that an interrupted work goes on where it stopped."""

import os
from collections import Counter
from pathlib import Path
from threading import Lock

import msgspec

from esper_lightning.leyline import DecodeError, decode, encode
from esper_lightning.urza.errors import storage_errors

MAX_TRIES = 2
"""A recipe that failed so often stays eager."""

MAX_INTERRUPTIONS = 3
"""One whose work was cut off so often is taken for what cut it off."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened.

    ``begun``; then ``failed``, or ``ended`` where nothing was wrong: it was examined, or left for
    another time; then ``decided``.
    """

    key: str
    event: str
    recipe: str = ""
    reason: str = ""


class Journal:
    """An append-only file that several processes may write.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        with storage_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, line: Line) -> None:
        """Append a line, and wait until it is on disk.

        Raises:
            LibraryError: it cannot be written.
        """
        with self._lock, storage_errors(self.path.parent):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                # In one call, so that lines of several processes do not mix; behind a line that was
                # cut off by a crash the line break in front begins a new one.
                os.write(descriptor, b"\n" + encode(line) + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def lines(self) -> list[Line]:
        """Every line that is whole, in the order of writing."""
        if not self.path.is_file():
            return []
        found: list[Line] = []
        for text in self.path.read_bytes().splitlines():
            try:
                found.append(decode(text, Line, what="journal"))
            except DecodeError:  # empty, or cut off by a crash
                continue
        return found

    def failures(self, key: str) -> list[str]:
        """Why the work on a key failed, each time since it was last decided."""
        found: list[str] = []
        counted: Counter[str] = Counter()
        for line in self.lines():
            if line.key != key:
                continue
            counted[line.event] += 1
            if line.event == "failed":
                found.append(line.reason)
            elif line.event == "decided":
                found.clear()
                counted.clear()
        cut_off = counted["begun"] - counted["failed"] - counted["ended"]
        if cut_off >= MAX_INTERRUPTIONS:
            found += [f"it was cut off {cut_off} times"] * MAX_TRIES
        return found
