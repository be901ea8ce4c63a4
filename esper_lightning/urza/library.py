"""The library: versions of artifacts that are stored, found, read and removed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from esper_lightning.leyline import InvalidArgument, Signer, installation_key
from esper_lightning.leyline.arguments import check_names, check_number, check_whole
from esper_lightning.urza import rows
from esper_lightning.urza.artifact import Artifact, Entry
from esper_lightning.urza.checking import Verification, verify
from esper_lightning.urza.content import Content, Vanished
from esper_lightning.urza.database import Database
from esper_lightning.urza.errors import Damaged, storage_errors
from esper_lightning.urza.garbage import Collected, collect
from esper_lightning.urza.manifest import (
    Manifest,
    Reference,
    check_key,
    check_name,
    check_part,
    told,
    unseal,
)
from esper_lightning.urza.reading import read
from esper_lightning.urza.recent import Recent
from esper_lightning.urza.retention import Retention

DATABASE_NAME = "library.sqlite"
"""The database's file name, in the folder of a library."""

GRACE_S = 3600.0
"""Age below which garbage collection leaves a file alone."""


class Library:
    """Artifacts by kind and name, in versions that never change.

    A folder with a database of what is known and files of bytes. Any number of processes and
    threads may use it at once. After a fork, and after pickling, it opens the folder again by
    itself. Where it cannot be written it can be read.

    Args:
        root: the folder; made where there is none.
        signer: signs what is stored, and tells what to trust; by default with the key of this
            installation (:func:`~esper_lightning.leyline.installation_key`).
        busy_s: how long to wait for another process that is writing.

    Raises:
        InvalidArgument: ``busy_s`` is no positive number.
        UnusableKey: there is no key of this installation.
        LibraryError: the folder cannot be used, or is no library that this release knows.
    """

    def __init__(
        self, root: Path | str, *, signer: Signer | None = None, busy_s: float = 30.0
    ) -> None:
        check_number("busy_s", busy_s)
        if not busy_s > 0:
            raise InvalidArgument(f"busy_s must be positive, got {busy_s}")
        self.root = Path(root).absolute()
        self._signer = signer or Signer(installation_key())
        self._reopen = partial(Library, self.root, busy_s=busy_s) if signer is None else None
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self._content = Content(self.root)
        self._database = Database(self.root / DATABASE_NAME, busy_s=busy_s)
        self._recent: Recent[tuple[str, str, int | None, str | None], Artifact | None] = Recent()
        with self._database.reading() as connection:
            rows.newest(connection, "", "")  # compiles the query, so that no `get` waits for it

    @property
    def read_only(self) -> bool:
        """Whether it can be read and not written."""
        return self._database.read_only

    # Storing

    def put(
        self,
        kind: str,
        name: str,
        parts: Mapping[str, bytes | Path],
        *,
        about: Mapping[str, Any] | None = None,
        parents: Iterable[Reference] = (),
        tags: Sequence[str] = (),
    ) -> Artifact:
        """Store a new version, the first of its kind and name or the next.

        It is whole and on disk when this returns. A crash before leaves files that nothing refers
        to, which garbage collection removes.

        Args:
            kind: of artifact: ``compiled``, ``policy`` or another lower-case word.
            name: within its kind.
            parts: its bytes by name, or files to copy them from; none is allowed.
            about: what to remember of it, as JSON.
            parents: the versions it was made from.
            tags: to give to it, taken from the version of this kind and name that had them.

        Raises:
            InvalidArgument: a name or ``about`` is not allowed, or a parent is not there.
            OSError: a file to copy from cannot be read.
            LibraryError: it cannot be stored; nothing was.
        """
        check_key(kind, name)
        for part, source in parts.items():
            check_part(part)
            if not isinstance(source, bytes | Path):
                raise InvalidArgument(f"part {part!r} must be bytes or a Path, got {type(source)}")
        draft = rows.Draft(
            kind=kind,
            name=name,
            about=told({} if about is None else about),
            parents=_checked_parents(parents),
            parts={},  # filled in below
            tags=_checked_tags(tags),
        )
        self._database.check_writable()
        for part, source in parts.items():
            with suppress(Vanished):
                draft.parts[part] = self._content.store(source)
        with self._database.writing() as connection:
            for part, source in parts.items():
                # Collected in between, or while it was written: nobody collects now.
                if part not in draft.parts or not self._content.holds(draft.parts[part]):
                    draft.parts[part] = self._content.store(source)
            manifest = rows.add(connection, draft, self._signer)
        return Artifact(manifest, self._read)

    def tag(self, reference: Reference, tag: str) -> None:
        """Give a tag to a version, taking it from the one of its kind and name that had it.

        Raises:
            InvalidArgument: there is no such version, or the tag is not allowed.
            LibraryError: it cannot be written.
        """
        check_name("tag", tag)
        with self._database.writing() as connection:
            if not rows.put_tag(connection, reference, tag):
                raise InvalidArgument(f"{reference} is not in this library")

    def untag(self, kind: str, name: str, tag: str) -> bool:
        """Take a tag away; whether there was one.

        Raises:
            LibraryError: it cannot be written.
        """
        with self._database.writing() as connection:
            return rows.remove_tag(connection, kind, name, tag)

    # Finding

    def get(
        self, kind: str, name: str, *, version: int | None = None, tag: str | None = None
    ) -> Artifact | None:
        """Look a version up, by its number, by a tag, or the newest that is intact.

        The answer comes from memory if the database has not changed, in any process, since it was
        asked for the same before.

        Returns:
            None if there is none, or, where neither number nor tag is given, none that is intact.

        Raises:
            InvalidArgument: ``kind`` or ``name`` is not allowed, or number and tag are both given.
            BadSignature: it is not signed with the key of this installation.
            Damaged: the version of that number or tag was found to be damaged earlier; no other
                version is given instead.
            LibraryError: the database cannot be read.
        """
        check_key(kind, name)
        if version is not None and tag is not None:
            raise InvalidArgument(f"give a version or a tag, got {version!r} and {tag!r}")
        check_whole("version", version, least=1, or_none=True)
        asked = (kind, name, version, tag)
        with self._database.lock:
            self._recent.follow(self._database.state())
            if asked in self._recent:
                return self._recent[asked]
            with self._database.reading() as connection:
                if version is not None:
                    found = rows.exact(connection, Reference(kind, name, version))
                elif tag is not None:
                    found = rows.tagged(connection, kind, name, tag)
                else:
                    found = rows.newest(connection, kind, name)
            artifact = None if found is None else Artifact(self._unsealed(found), self._read)
            self._recent[asked] = artifact
            return artifact

    def _unsealed(self, found: rows.Found) -> Manifest:
        """The manifest of a row, once nothing is known to be wrong with it."""
        reference = found.reference
        if found.damage is not None:
            raise Damaged(
                f"{reference} is damaged ({found.damage}); store it again, or ask for another "
                "version"
            )
        return unseal(found.manifest, found.signature, self._signer, claimed=reference)

    def find(
        self, kind: str | None = None, pattern: str | None = None, *, tag: str | None = None
    ) -> list[Entry]:
        """List what matches all that is given, ordered by kind, name and version.

        It is a list of what the index says: damaged and unsigned versions are in it too.

        Args:
            kind: of the artifacts.
            pattern: of their names, with ``*``, ``?`` and ``[...]``.
            tag: that they have.

        Raises:
            LibraryError: the database cannot be read.
        """
        with self._database.reading() as connection:
            return rows.entries(connection, kind=kind, pattern=pattern, tag=tag)

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """The tags of a version, in order; none where there is no such version."""
        with self._database.reading() as connection:
            return rows.tags_of(connection, reference)

    def children(self, reference: Reference) -> list[Reference]:
        """The versions that were made from this one, as the index has it."""
        with self._database.reading() as connection:
            return rows.children(connection, reference)

    def lineage(self, reference: Reference) -> list[Reference]:
        """All that a version was made from, the nearest first, as the index has it."""
        found: dict[Reference, None] = {}
        nearest = [reference]
        with self._database.reading() as connection:
            while nearest:
                before = [each for one in nearest for each in rows.parents_of(connection, one)]
                nearest = [each for each in dict.fromkeys(before) if each not in found]
                found.update(dict.fromkeys(nearest))
        return list(found)

    def _read(self, manifest: Manifest, part: str) -> bytes:
        return read(self._database, self._content, manifest, part)

    # Keeping

    def verify(self, progress: Callable[[int, int], None] | None = None) -> Verification:
        """Check every signature and read every file.

        What is damaged is set aside as it is when it is read; what is not signed with this
        installation's key is left alone, since it may be signed with another.

        Args:
            progress: is told how many versions were looked at, and of how many.

        Raises:
            LibraryError: the database cannot be read.
        """
        return verify(self._database, self._content, self._unsealed, progress)

    def collect_garbage(
        self, *, retention: Retention | None = None, grace_s: float = GRACE_S
    ) -> Collected:
        """Remove the versions that a rule lets go, and files that nothing needs.

        Those are files that no version refers to or that somebody did not finish writing, and
        damaged files that were set aside more than 30 days ago. It is safe while others store: what
        they are about to refer to is written again if it was removed.

        Args:
            retention: the rule; None lets no version go.
            grace_s: age below which a file is left alone.

        Raises:
            InvalidArgument: ``grace_s`` is no number of at least 0.
            LibraryError: something cannot be removed; what was is gone.
        """
        check_number("grace_s", grace_s)
        if not grace_s >= 0:
            raise InvalidArgument(f"grace_s must be at least 0, got {grace_s}")
        return collect(self._database, self._content, retention=retention, grace_s=grace_s)

    def quarantined(self) -> list[Path]:
        """The damaged files that were set aside, for somebody to look at and never to load."""
        return sorted(self._content.quarantined())

    def close(self) -> None:
        """Let go of the database; it is opened again when something is asked."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], "Library"], tuple[()]]:
        if self._reopen is None:
            raise TypeError(
                "a Library with a signer of its own is not pickled, since its key would be written "
                "with it: open it again in the other process, or set ESPER_LEYLINE_SECRET"
            )
        return self._reopen, ()

    def __repr__(self) -> str:
        return f"Library({str(self.root)!r})"


def _checked_parents(parents: Iterable[Reference]) -> tuple[Reference, ...]:
    told = tuple(dict.fromkeys(parents))
    for parent in told:
        if not isinstance(parent, Reference):
            raise InvalidArgument(f"parents must be References, such as .reference, got {parent!r}")
    return told


def _checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    check_names("tags", tags)
    for tag in tags:
        check_name("tag", tag)
    return tuple(dict.fromkeys(tags))
