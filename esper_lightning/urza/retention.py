"""Which versions may go: a rule, and what follows from it for a given library."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import inf

import msgspec

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.urza.manifest import Part, Reference


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept; a version that any of the limits excludes may go.

    Whatever they say, a version with a tag is kept, and so is all that it was made from.

    Attributes:
        keep_versions: the newest so many of each kind and name; those that are damaged do not count
            and go first. None for all.
        max_age_s: those stored less than so long ago. None for all.
        max_bytes: the newest whose files take so many bytes together, a shared file counted once;
            what is kept whatever the limits say counts too. None for all.
    """

    keep_versions: int | None = None
    max_age_s: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        check_whole("keep_versions", self.keep_versions, least=1, or_none=True)
        check_whole("max_bytes", self.max_bytes, least=0, or_none=True)
        check_number("max_age_s", self.max_age_s, or_none=True)
        if self.max_age_s is not None and not 0 <= self.max_age_s < inf:
            raise InvalidArgument(f"max_age_s must be at least 0, got {self.max_age_s}")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A version as a rule sees it.

    Attributes:
        number: of its row.
        reference: which version.
        created: seconds since 1970.
        damaged: whether it can no longer be read.
        tagged: whether it has a tag.
        parts: its files.
        parents: what it was made from.
    """

    number: int
    reference: Reference
    created: float
    damaged: bool
    tagged: bool
    parts: tuple[Part, ...]
    parents: tuple[Reference, ...]


def expired(versions: Sequence[Kept], retention: Retention, *, now: float) -> list[Kept]:
    """Those that a rule lets go.

    Args:
        versions: all of a library.
        retention: the rule.
        now: seconds since 1970.
    """
    held = _held(versions)
    go: set[int] = set()
    if retention.keep_versions is not None:
        go |= _beyond(versions, retention.keep_versions)
    if retention.max_age_s is not None:
        oldest = now - retention.max_age_s
        go |= {version.number for version in versions if version.created < oldest}
    go -= held
    if retention.max_bytes is not None:
        go |= _over(versions, retention.max_bytes, held=held, gone=go)
    return [version for version in versions if version.number in go]


def _held(versions: Iterable[Kept]) -> set[int]:
    """Row numbers of those with a tag, and of all that they were made from."""
    by_reference = {version.reference: version for version in versions}
    held: set[int] = set()
    waiting = [version for version in by_reference.values() if version.tagged]
    while waiting:
        version = waiting.pop()
        if version.number not in held:
            held.add(version.number)
            waiting += [by_reference[each] for each in version.parents if each in by_reference]
    return held


def _beyond(versions: Iterable[Kept], keep: int) -> set[int]:
    """Row numbers of those that are not among the newest of their series."""
    series: defaultdict[tuple[str, str], list[Kept]] = defaultdict(list)
    for version in versions:
        series[version.reference.kind, version.reference.name].append(version)
    go: set[int] = set()
    for members in series.values():
        intact = sorted(
            (each for each in members if not each.damaged),
            key=lambda each: each.reference.version,
            reverse=True,
        )
        go |= {each.number for each in members} - {each.number for each in intact[:keep]}
    return go


def _over(versions: Sequence[Kept], most: int, *, held: set[int], gone: set[int]) -> set[int]:
    """Row numbers of the oldest that must go for the files of the others to take ``most`` bytes."""
    there = [version for version in versions if version.number not in gone]
    uses = Counter(part for version in there for part in set(version.parts))
    total = sum(part.size for part in uses)
    go: set[int] = set()
    for version in sorted(there, key=lambda each: (not each.damaged, each.created, each.number)):
        if total <= most:
            break
        if version.number in held:
            continue
        go.add(version.number)
        for part in set(version.parts):
            uses[part] -= 1
            total -= part.size * (uses[part] == 0)
    return go
