"""Removing what a library no longer needs, while others read and write it.

A file is removed only within a transaction that nobody else can write beside, after it was found
that no row refers to it. Whoever stores something enters its row in such a transaction too, after
it was found that its files are there. So a row never refers to a file that was removed, however old
the file is and whoever else stored the same bytes before. Unfinished files are removed in the same
way, and whoever loses one writes it again within the transaction.
"""

import logging
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from esper_lightning.urza import rows
from esper_lightning.urza.content import Content
from esper_lightning.urza.database import Database
from esper_lightning.urza.errors import storage_errors
from esper_lightning.urza.manifest import Reference
from esper_lightning.urza.retention import Retention, expired

log = logging.getLogger(__name__)

QUARANTINE_S = 30 * 24 * 3600.0
"""For how long a damaged file is kept for somebody to look at."""

_BATCH = 256
"""Files that are removed in one transaction: others wait for milliseconds."""


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed.

    Attributes:
        versions: that the rule let go.
        files: that no version referred to, set aside as damaged, or left unfinished.
        size: bytes of these files.
    """

    versions: tuple[Reference, ...]
    files: int
    size: int


def collect(
    database: Database, content: Content, *, retention: Retention | None, grace_s: float
) -> Collected:
    """See :meth:`~esper_lightning.urza.library.Library.collect_garbage`."""
    gone = _expire(database, retention) if retention is not None else ()
    sizes = list(_sweep(database, content, grace_s))
    leftovers = content.partial(older_than_s=grace_s)
    leftovers += content.quarantined(older_than_s=max(grace_s, QUARANTINE_S))
    with database.writing(), storage_errors(content.root):
        sizes += [size for path in leftovers if (size := _unlink(path)) is not None]
    if gone or sizes:
        log.info("%s: removed %d versions and %d files", content.root, len(gone), len(sizes))
    return Collected(versions=gone, files=len(sizes), size=sum(sizes))


def _expire(database: Database, retention: Retention) -> tuple[Reference, ...]:
    with database.writing() as connection:
        go = expired(rows.kept(connection), retention, now=time.time())
        rows.remove(connection, [version.number for version in go])
    return tuple(sorted(version.reference for version in go))


def _sweep(database: Database, content: Content, grace_s: float) -> Iterator[int]:
    """Remove files that no row refers to; gives the size of each."""
    with database.reading() as connection:
        referred = rows.referred(connection)
    loose = (path for path in content.stored(older_than_s=grace_s) if path.name not in referred)
    while batch := list(islice(loose, _BATCH)):
        with database.writing() as connection, storage_errors(content.root):
            still = rows.referred(connection, {path.name for path in batch})
            sizes = [_unlink(path) for path in batch if path.name not in still]
        yield from (size for size in sizes if size is not None)


def _unlink(path: Path) -> int | None:
    """Bytes of the file that was removed; None where another process was faster."""
    try:
        size = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        return None
    return size
