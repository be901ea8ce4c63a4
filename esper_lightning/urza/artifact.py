"""One version as it is handed out, and a line of a list of them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from esper_lightning.urza.manifest import Manifest, Part, Reference


class Artifact:
    """One version, whose manifest's signature was found to be right.

    Attributes:
        reference: which version it is.
        parts: what :meth:`read` can be asked for, with sizes.
        parents: the versions it was made from.
        created: seconds since 1970, by the clock of the machine that stored it.
    """

    __slots__ = ("_manifest", "_read", "created", "parents", "parts", "reference")

    def __init__(self, manifest: Manifest, read: Callable[[Manifest, str], bytes]) -> None:
        self._manifest = manifest
        self._read = read
        self.reference: Reference = manifest.reference
        self.parts: Mapping[str, Part] = MappingProxyType(manifest.parts)
        self.parents: tuple[Reference, ...] = manifest.parents
        self.created: float = manifest.created

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.reference.kind

    @property
    def name(self) -> str:
        """Its name within its kind."""
        return self.reference.name

    @property
    def version(self) -> int:
        """Its number, from 1."""
        return self.reference.version

    @property
    def about(self) -> dict[str, Any]:
        """What its maker said of it; the caller's own copy."""
        told: dict[str, Any] = msgspec.json.decode(self._manifest.about)
        return told

    @property
    def size(self) -> int:
        """Bytes of all parts together."""
        return self._manifest.size

    def read(self, part: str) -> bytes:
        """The bytes of a part, read from its file and compared with the signed SHA-256.

        Raises:
            InvalidArgument: it has no such part.
            Damaged: they are missing or have changed. The file is moved to ``quarantine``, and
                every version that it was part of is marked.
            Removed: garbage collection has removed this version since it was looked up.
            LibraryError: the file or the database cannot be read.
        """
        return self._read(self._manifest, part)

    def __repr__(self) -> str:
        return f"<{self.reference}: {', '.join(self.parts) or 'no parts'}>"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a list: what the index says of a version, whose signature was not looked at.

    Attributes:
        reference: which version.
        created: seconds since 1970.
        size: bytes of all parts together.
        tags: it has, in order.
        damage: why it can no longer be read; None while nothing is known to be wrong with it.
    """

    reference: Reference
    created: float
    size: int
    tags: tuple[str, ...]
    damage: str | None
