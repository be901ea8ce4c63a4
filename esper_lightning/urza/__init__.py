"""Urza: the library of what growth can use again, such as compiled artifacts and policies.

What is known is in a SQLite database, bytes are in files that are named by their SHA-256. What was
not stored by this installation, or is no longer what was stored, is never handed out.

Design: docs/design/detailed_design/08-urza.md
"""

from esper_lightning.urza.artifact import Artifact, Entry
from esper_lightning.urza.checking import Verification
from esper_lightning.urza.errors import (
    BadSignature,
    Damaged,
    LibraryBusy,
    LibraryError,
    LibraryFull,
    LibraryReadOnly,
    LibraryUnusable,
    Removed,
)
from esper_lightning.urza.garbage import Collected
from esper_lightning.urza.library import Library
from esper_lightning.urza.location import default_root
from esper_lightning.urza.manifest import Part, Reference
from esper_lightning.urza.retention import Retention

__all__ = [
    "Artifact",
    "BadSignature",
    "Collected",
    "Damaged",
    "Entry",
    "Library",
    "LibraryBusy",
    "LibraryError",
    "LibraryFull",
    "LibraryReadOnly",
    "LibraryUnusable",
    "Part",
    "Reference",
    "Removed",
    "Retention",
    "Verification",
    "default_root",
]
