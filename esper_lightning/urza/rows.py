"""What is asked of the tables and written to them, each within a transaction of the caller's."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from esper_lightning.leyline import InvalidArgument, Signer
from esper_lightning.urza.artifact import Entry
from esper_lightning.urza.manifest import Manifest, Part, Reference, seal
from esper_lightning.urza.retention import Kept
from esper_lightning.urza.tables import artifacts, parents, parts, series, tags


class Found(NamedTuple):
    """A row of a version, whose signature was not looked at."""

    kind: str
    name: str
    version: int
    manifest: object
    signature: object
    damage: str | None

    @property
    def reference(self) -> Reference:
        """Which version the row says it is."""
        return Reference(self.kind, self.name, self.version)


_columns = select(
    artifacts.c.kind,
    artifacts.c.name,
    artifacts.c.version,
    artifacts.c.manifest,
    artifacts.c.signature,
    artifacts.c.damage,
)
_series = and_(artifacts.c.kind == bindparam("kind"), artifacts.c.name == bindparam("name"))

_NEWEST = (
    _columns.where(_series, artifacts.c.damage.is_(None))
    .order_by(artifacts.c.version.desc())
    .limit(1)
)
_EXACT = _columns.where(_series, artifacts.c.version == bindparam("version"))
_TAGGED = _columns.join(tags, tags.c.artifact == artifacts.c.id).where(
    _series,
    tags.c.kind == bindparam("kind"),
    tags.c.name == bindparam("name"),
    tags.c.tag == bindparam("tag"),
)
_ID = select(artifacts.c.id).where(_series, artifacts.c.version == bindparam("version"))
_LAST = select(series.c.version).where(
    series.c.kind == bindparam("kind"), series.c.name == bindparam("name")
)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A version before it has a number; see :class:`~esper_lightning.urza.manifest.Manifest`."""

    kind: str
    name: str
    about: msgspec.Raw
    parents: tuple[Reference, ...]
    parts: dict[str, Part]
    tags: tuple[str, ...]


def newest(connection: Connection, kind: str, name: str) -> Found | None:
    """The last version that is not marked as damaged."""
    return _first(connection, _NEWEST, {"kind": kind, "name": name})


def exact(connection: Connection, reference: Reference) -> Found | None:
    """One version."""
    return _first(connection, _EXACT, msgspec.structs.asdict(reference))


def tagged(connection: Connection, kind: str, name: str, tag: str) -> Found | None:
    """The version that has a tag."""
    return _first(connection, _TAGGED, {"kind": kind, "name": name, "tag": tag})


def _first(
    connection: Connection,
    query: Select[Any],
    asked: Mapping[str, object],
) -> Found | None:
    row = connection.execute(query, asked).first()
    return None if row is None else Found(*row)


def identity(connection: Connection, reference: Reference) -> int | None:
    """The key of a version's row, None without one."""
    found: int | None = connection.execute(_ID, msgspec.structs.asdict(reference)).scalar()
    return found


def add(connection: Connection, draft: Draft, signer: Signer) -> Manifest:
    """Give a draft its number, sign it and enter it.

    Raises:
        InvalidArgument: a parent is not there.
    """
    for parent in draft.parents:
        if identity(connection, parent) is None:
            raise InvalidArgument(f"the parent {parent} is not in this library")
    key = {"kind": draft.kind, "name": draft.name}
    last = connection.execute(_LAST, key).scalar()
    manifest = Manifest(
        **key,
        version=1 + (last or 0),
        about=draft.about,
        parents=draft.parents,
        parts=draft.parts,
        created=time.time(),
    )
    if last is None:
        connection.execute(insert(series), {**key, "version": manifest.version})
    else:
        connection.execute(
            update(series).where(series.c.kind == draft.kind, series.c.name == draft.name),
            {"version": manifest.version},
        )
    text, signature = seal(manifest, signer)
    row = {
        **key,
        "version": manifest.version,
        "manifest": text,
        "signature": signature,
        "created": manifest.created,
    }
    (number,) = connection.execute(insert(artifacts), row).inserted_primary_key or (None,)
    _insert(
        connection,
        parts,
        ({"part": name, **msgspec.structs.asdict(part)} for name, part in draft.parts.items()),
        artifact=number,
    )
    _insert(connection, parents, map(msgspec.structs.asdict, draft.parents), child=number)
    for tag in draft.tags:
        put_tag(connection, manifest.reference, tag)
    return manifest


def _insert(
    connection: Connection, table: Table, values: Iterable[dict[str, object]], **common: object
) -> None:
    if lines := [{**each, **common} for each in values]:
        connection.execute(insert(table), lines)


def put_tag(connection: Connection, reference: Reference, tag: str) -> bool:
    """Give a tag of its series to a version; False where there is no such version."""
    number = identity(connection, reference)
    if number is None:
        return False
    remove_tag(connection, reference.kind, reference.name, tag)
    key = {"kind": reference.kind, "name": reference.name, "tag": tag}
    connection.execute(insert(tags), {**key, "artifact": number})
    return True


def remove_tag(connection: Connection, kind: str, name: str, tag: str) -> bool:
    """Take a tag away; False where there is none."""
    where = (tags.c.kind == kind, tags.c.name == name, tags.c.tag == tag)
    return connection.execute(delete(tags).where(*where)).rowcount > 0


def tags_of(connection: Connection, reference: Reference) -> tuple[str, ...]:
    """All tags of a version, in order."""
    number = identity(connection, reference)
    query = select(tags.c.tag).where(tags.c.artifact == number).order_by(tags.c.tag)
    return tuple(connection.scalars(query))


def children(connection: Connection, reference: Reference) -> list[Reference]:
    """What says that it was made from a version."""
    query = (
        select(artifacts.c.kind, artifacts.c.name, artifacts.c.version)
        .join(parents, parents.c.child == artifacts.c.id)
        .where(
            parents.c.kind == reference.kind,
            parents.c.name == reference.name,
            parents.c.version == reference.version,
        )
        .order_by(artifacts.c.id)
    )
    return [Reference(*row) for row in connection.execute(query)]


def parents_of(connection: Connection, reference: Reference) -> list[Reference]:
    """What a version says that it was made from."""
    query = (
        select(parents.c.kind, parents.c.name, parents.c.version)
        .join(artifacts, parents.c.child == artifacts.c.id)
        .where(
            artifacts.c.kind == reference.kind,
            artifacts.c.name == reference.name,
            artifacts.c.version == reference.version,
        )
        .order_by(parents.c.kind, parents.c.name, parents.c.version)
    )
    return [Reference(*row) for row in connection.execute(query)]


def mark(connection: Connection, sha256: str, damage: str) -> None:
    """Note the damage of a file on every version that has it as a part and no earlier note."""
    holders = select(parts.c.artifact).where(parts.c.sha256 == sha256)
    connection.execute(
        update(artifacts)
        .where(artifacts.c.id.in_(holders), artifacts.c.damage.is_(None))
        .values(damage=damage)
    )


def page(connection: Connection, *, after: int, length: int) -> list[tuple[int, Found]]:
    """The next versions behind a row number, each with its own; for walking through all of them."""
    query = (
        select(artifacts.c.id, *_columns.selected_columns)
        .where(artifacts.c.id > after)
        .order_by(artifacts.c.id)
        .limit(length)
    )
    return [(number, Found(*row)) for number, *row in connection.execute(query)]


def count(connection: Connection) -> int:
    """How many versions there are."""
    return connection.execute(select(func.count()).select_from(artifacts)).scalar_one()


def referred(connection: Connection, candidates: Iterable[str] | None = None) -> set[str]:
    """SHA-256 of the files that a version has as a part: of all, or of those among candidates."""
    query = select(parts.c.sha256).distinct()
    if candidates is not None:
        query = query.where(parts.c.sha256.in_(list(candidates)))
    return set(connection.scalars(query))


def remove(connection: Connection, numbers: Iterable[int]) -> None:
    """Remove rows of versions, with all that belongs to them."""
    for number in numbers:
        connection.execute(delete(artifacts).where(artifacts.c.id == number))


def kept(connection: Connection) -> list[Kept]:
    """Every version, as a rule of retention sees it."""
    files: defaultdict[int, list[Part]] = defaultdict(list)
    for number, sha256, size in connection.execute(
        select(parts.c.artifact, parts.c.sha256, parts.c.size)
    ):
        files[number].append(Part(sha256, size))
    origins: defaultdict[int, list[Reference]] = defaultdict(list)
    for number, *parent in connection.execute(select(parents)):
        origins[number].append(Reference(*parent))
    tagged_ones = set(connection.scalars(select(tags.c.artifact)))
    query = select(
        artifacts.c.id,
        artifacts.c.kind,
        artifacts.c.name,
        artifacts.c.version,
        artifacts.c.created,
        artifacts.c.damage,
    ).order_by(artifacts.c.id)
    return [
        Kept(
            number=number,
            reference=Reference(kind, name, version),
            created=created,
            damaged=damage is not None,
            tagged=number in tagged_ones,
            parts=tuple(files[number]),
            parents=tuple(origins[number]),
        )
        for number, kind, name, version, created, damage in connection.execute(query)
    ]


def entries(
    connection: Connection, *, kind: str | None, pattern: str | None, tag: str | None
) -> list[Entry]:
    """What matches all that is not None, in order; ``pattern`` has ``*``, ``?`` and ``[...]``."""
    size = select(func.coalesce(func.sum(parts.c.size), 0)).where(
        parts.c.artifact == artifacts.c.id
    )
    query = select(
        artifacts.c.id,
        artifacts.c.kind,
        artifacts.c.name,
        artifacts.c.version,
        artifacts.c.created,
        artifacts.c.damage,
        size.scalar_subquery(),
    ).order_by(artifacts.c.kind, artifacts.c.name, artifacts.c.version)
    if kind is not None:
        query = query.where(artifacts.c.kind == kind)
    if pattern is not None:
        query = query.where(artifacts.c.name.op("GLOB")(pattern))
    if tag is not None:
        holders = select(tags.c.artifact).where(tags.c.tag == tag)
        query = query.where(artifacts.c.id.in_(holders))
    names: defaultdict[int, list[str]] = defaultdict(list)
    for number, name in connection.execute(
        select(tags.c.artifact, tags.c.tag).order_by(tags.c.tag)
    ):
        names[number].append(name)
    return [
        Entry(
            reference=Reference(kind, name, version),
            created=created,
            size=total,
            tags=tuple(names[number]),
            damage=damage,
        )
        for number, kind, name, version, created, damage, total in connection.execute(query)
    ]
