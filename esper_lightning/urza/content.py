"""Bytes in files that are named by their SHA-256."""

import hashlib
import io
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from esper_lightning.leyline.folders import sync_folder
from esper_lightning.urza.errors import LibraryUnusable, storage_errors
from esper_lightning.urza.manifest import Part

_BLOCK = 2**20


class NotIntact(Exception):
    """The bytes of a part are not those that were stored; the text says why."""


class Vanished(LibraryUnusable):
    """A file was removed while it was written."""


class Content:
    """The files of a library.

    Under ``content`` a file has its final name only when it is whole and synced to disk; until then
    it lies under ``partial``. What turned out to be damaged is moved to ``quarantine``.

    Args:
        root: folder of the library.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._content = root / "content"
        self._partial = root / "partial"
        self._quarantine = root / "quarantine"

    def path(self, sha256: str) -> Path:
        """Where these bytes are, or would be."""
        return self._content / sha256[:2] / sha256

    def store(self, source: bytes | Path) -> Part:
        """Write bytes so that no crash leaves less than all of them under their name.

        They are written anew even where they are already: what lies there may be damaged.

        Raises:
            Vanished: the file was removed while it was written, as garbage or by a person.
            LibraryError: they cannot be written; nothing is left of them.
        """
        with _opened(source) as reading, storage_errors(self.root):
            try:
                return self._store(reading)
            except FileNotFoundError as error:
                raise Vanished(f"{error.filename} vanished while it was written") from error

    def _store(self, reading: BinaryIO) -> Part:
        self._partial.mkdir(parents=True, exist_ok=True)
        partial = self._partial / secrets.token_hex(16)
        try:
            with partial.open("xb") as writing:
                part = _copy(reading, writing)
                writing.flush()
                os.fsync(writing.fileno())
            final = self.path(part.sha256)
            if not final.parent.is_dir():
                final.parent.mkdir(parents=True, exist_ok=True)
                sync_folder(self._content)
                sync_folder(self.root)
            os.replace(partial, final)
            sync_folder(final.parent)
        finally:
            partial.unlink(missing_ok=True)
        return part

    def holds(self, part: Part) -> bool:
        """Whether a file of this name and size is there; its bytes are not looked at."""
        try:
            return self.path(part.sha256).stat().st_size == part.size
        except FileNotFoundError:
            return False

    def read(self, part: Part) -> bytes:
        """The bytes, checked.

        Raises:
            NotIntact: they are missing, or they are not those that were stored.
            LibraryError: the system cannot read the file.
        """
        with self._readable(part) as file:
            data = file.read(part.size)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise NotIntact("its bytes have changed")
        return data

    def check(self, part: Part) -> None:
        """Like :meth:`read`, without keeping the bytes in memory."""
        digest = hashlib.sha256()
        with self._readable(part) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != part.sha256:
            raise NotIntact("its bytes have changed")

    @contextmanager
    def _readable(self, part: Part) -> Iterator[BinaryIO]:
        with storage_errors(self.root):
            try:
                # Not to wait for ever where somebody put a pipe.
                flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
                descriptor = os.open(self.path(part.sha256), flags)
            except FileNotFoundError:
                raise NotIntact("its file is missing") from None
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                os.close(descriptor)
                raise NotIntact("what has its name is no file")
            with os.fdopen(descriptor, "rb") as file:
                if found.st_size != part.size:
                    raise NotIntact(f"it has {found.st_size} bytes instead of {part.size}")
                yield file

    def set_aside(self, sha256: str) -> Path | None:
        """Move a damaged file where nothing reads it; None where none is there."""
        self._quarantine.mkdir(parents=True, exist_ok=True)
        aside = self._quarantine / f"{sha256}.{secrets.token_hex(4)}"
        try:
            os.replace(self.path(sha256), aside)
        except FileNotFoundError:
            return None
        os.utime(aside)  # kept for as long after it was found
        return aside

    # What may be removed

    def stored(self, *, older_than_s: float) -> Iterator[Path]:
        """Every file under ``content`` that was written at least so long ago, named by SHA-256."""
        return _files(self._content, "*/*", older_than_s)

    def partial(self, *, older_than_s: float) -> list[Path]:
        """Files that somebody began to write so long ago and did not finish."""
        return list(_files(self._partial, "*", older_than_s))

    def quarantined(self, *, older_than_s: float = 0.0) -> list[Path]:
        """Files that were set aside so long ago."""
        return list(_files(self._quarantine, "*", older_than_s))


def _files(folder: Path, pattern: str, older_than_s: float) -> Iterator[Path]:
    latest = time.time() - older_than_s
    for path in folder.glob(pattern):
        try:
            found = path.lstat()
        except FileNotFoundError:  # another process removed it
            continue
        if not stat.S_ISDIR(found.st_mode) and found.st_mtime <= latest:
            yield path


def _opened(source: bytes | Path) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _copy(reading: BinaryIO, writing: BinaryIO) -> Part:
    digest, size = hashlib.sha256(), 0
    while block := reading.read(_BLOCK):
        writing.write(block)
        digest.update(block)
        size += len(block)
    return Part(digest.hexdigest(), size)
