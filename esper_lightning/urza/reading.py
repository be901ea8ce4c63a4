"""Reading the bytes of a version, and what happens to those that are not what they were."""

import logging

from esper_lightning.leyline import InvalidArgument
from esper_lightning.urza import rows
from esper_lightning.urza.content import Content, NotIntact
from esper_lightning.urza.database import Database
from esper_lightning.urza.errors import (
    Damaged,
    LibraryBusy,
    LibraryFull,
    LibraryReadOnly,
    Removed,
    storage_errors,
)
from esper_lightning.urza.manifest import Manifest, Part, Reference

log = logging.getLogger(__name__)


def read(database: Database, content: Content, manifest: Manifest, name: str) -> bytes:
    """See :meth:`~esper_lightning.urza.artifact.Artifact.read`."""
    if name not in manifest.parts:
        raise InvalidArgument(
            f"{manifest.reference} has no part {name!r}; it has: "
            f"{', '.join(manifest.parts) or 'none'}"
        )
    part = manifest.parts[name]
    try:
        return content.read(part)
    except NotIntact as error:
        set_aside(database, content, manifest.reference, part, why=str(error))
    try:
        return content.read(part)  # somebody stored the same bytes anew in between
    except NotIntact as error:
        raise Damaged(f"{manifest.reference}, part {name!r}: {error}") from error


def check(database: Database, content: Content, manifest: Manifest, name: str) -> None:
    """Like :func:`read`, without keeping the bytes."""
    part = manifest.parts[name]
    try:
        content.check(part)
    except NotIntact as error:
        set_aside(database, content, manifest.reference, part, why=str(error))


def set_aside(
    database: Database, content: Content, reference: Reference, part: Part, *, why: str
) -> None:
    """Move a damaged file away and mark every version that it was part of.

    Returns only if the file was found to be whole after all, while nobody else could write.

    Raises:
        Damaged: it is not.
        Removed: the version is no longer there.
    """
    damage = f"file {part.sha256[:12]}: {why}"
    try:
        with database.writing() as connection, storage_errors(content.root):
            if rows.identity(connection, reference) is None:
                raise Removed(f"{reference} was removed from this library since it was looked up")
            try:
                content.check(part)
            except NotIntact:
                aside = content.set_aside(part.sha256)
                rows.mark(connection, part.sha256, damage)
            else:
                return
    except (LibraryBusy, LibraryFull, LibraryReadOnly) as error:
        log.warning("%s is damaged (%s) and stays where it is: %s", reference, damage, error)
    else:
        log.warning(
            "%s is damaged (%s); %s",
            reference,
            damage,
            f"moved to {aside}" if aside else "nothing was left to move away",
        )
    raise Damaged(
        f"{reference} is damaged ({damage}); nothing of it was used. Store it again, or ask for "
        "another version"
    )
