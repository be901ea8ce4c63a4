"""The tables of a library's database, and how an older one is brought up to date.

What is signed is the column ``manifest``; everything else is an index of it, or says what was done
with a version since. An index that was tampered with leads to a manifest that says otherwise, and
is refused.
"""

from collections.abc import Callable

from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

APPLICATION_ID = 0x55727A61
"""Marks a SQLite file as a library (``PRAGMA application_id``)."""

SCHEMA_VERSION = 1
"""Of these tables (``PRAGMA user_version``)."""

UPGRADES: dict[int, Callable[[Connection], None]] = {}
"""How tables of a version become those of the next; one entry for every version but the last."""

metadata = MetaData()

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("version", Integer, nullable=False),
    # Text, so that no value that somebody wrote there is converted before it is checked.
    Column("manifest", String, nullable=False),
    Column("signature", String, nullable=False),
    Column("created", Float, nullable=False),
    # Why it can no longer be read; null while nothing is known to be wrong with it.
    Column("damage", String),
    UniqueConstraint("kind", "name", "version"),
)


parts = Table(
    "parts",
    metadata,
    Column("artifact", Integer, ForeignKey("artifacts.id", ondelete="CASCADE"), primary_key=True),
    Column("part", String, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("size", Integer, nullable=False),
    Index("parts_by_content", "sha256"),
)

parents = Table(
    "parents",
    metadata,
    Column("child", Integer, ForeignKey("artifacts.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Index("children_by_parent", "kind", "name", "version"),
)

tags = Table(
    "tags",
    metadata,
    Column("kind", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("tag", String, primary_key=True),
    Column("artifact", Integer, ForeignKey("artifacts.id", ondelete="CASCADE"), nullable=False),
    Index("tags_by_artifact", "artifact"),
)

series = Table(
    "series",
    metadata,
    Column("kind", String, primary_key=True),
    Column("name", String, primary_key=True),
    # The last version that was given, though it may have been removed since.
    Column("version", Integer, nullable=False),
)
