"""What may go, what goes, and that nothing goes that somebody is about to refer to."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from esper_lightning.leyline import InvalidArgument
from esper_lightning.urza import Library, LibraryUnusable, Part, Reference, Retention
from esper_lightning.urza.content import Content
from esper_lightning.urza.garbage import QUARANTINE_S
from esper_lightning.urza.retention import Kept, expired

NOW = 1_000_000.0


# The rule


def version(
    name: str,
    number: int,
    *,
    age: float = 0.0,
    size: int = 1,
    of: Iterable[Kept] = (),
    **other: Any,
) -> Kept:
    reference = Reference("policy", name, number)
    return Kept(
        number=hash(reference) % 10**9,
        reference=reference,
        created=NOW - age,
        damaged=other.get("damaged", False),
        tagged=other.get("tagged", False),
        parts=other.get("parts", (Part(str(reference), size),)),
        parents=tuple(each.reference for each in of),
    )


def gone(versions: list[Kept], **rule: Any) -> list[str]:
    names = [expired.reference for expired in expired(versions, Retention(**rule), now=NOW)]
    return [f"{name.name}{name.version}" for name in names]


def test_without_limits_all_is_kept() -> None:
    assert gone([version("a", 1, age=1e9, damaged=True), version("a", 2)]) == []


def test_the_newest_of_each_name_are_kept() -> None:
    versions = [version("a", n) for n in (1, 2, 3)] + [version("b", 1)]
    assert gone(versions, keep_versions=2) == ["a1"]
    assert gone(versions, keep_versions=1) == ["a1", "a2"]
    assert gone(versions, keep_versions=9) == []


def test_what_is_damaged_does_not_count_and_goes() -> None:
    versions = [version("a", 1), version("a", 2, damaged=True), version("a", 3, damaged=True)]
    assert gone(versions, keep_versions=1) == ["a2", "a3"]
    tagged = [*versions[:2], replace(versions[2], tagged=True)]
    assert gone(tagged, keep_versions=1) == ["a2"]


def test_what_is_old_goes_however_new_it_is() -> None:
    versions = [version("a", 1, age=10), version("a", 2, age=5), version("b", 1, age=10.5)]
    assert gone(versions, max_age_s=10) == ["b1"]
    assert gone(versions, max_age_s=0) == ["a1", "a2", "b1"]


def test_the_oldest_go_until_there_is_room() -> None:
    versions = [version("a", n, age=-n, size=10) for n in (1, 2, 3)]
    assert gone(versions, max_bytes=30) == []
    assert gone(versions, max_bytes=29) == ["a1"]
    assert gone(versions, max_bytes=10) == ["a1", "a2"]
    assert gone(versions, max_bytes=0) == ["a1", "a2", "a3"]
    damaged = [*versions[:2], replace(versions[2], damaged=True)]
    assert gone(damaged, max_bytes=29) == ["a3"]


def test_a_shared_file_counts_once_and_goes_with_the_last() -> None:
    shared = Part("shared", 100)
    versions = [
        version("a", 1, age=3, parts=(shared, Part("x", 1))),
        version("a", 2, age=2, parts=(shared, shared)),
        version("a", 3, age=1, parts=(Part("y", 1),)),
    ]
    assert gone(versions, max_bytes=102) == []
    assert gone(versions, max_bytes=101) == ["a1"]
    assert gone(versions, max_bytes=100) == ["a1", "a2"]


def test_a_tag_keeps_a_version_and_what_it_was_made_from() -> None:
    root = version("a", 1, age=9, size=10)
    middle = version("a", 2, age=9, size=10, of=[root])
    tagged = version("b", 1, age=9, size=10, of=[middle], tagged=True)
    beside = version("a", 3, age=9, size=10, of=[root])
    new = version("a", 4, size=10)
    versions = [root, middle, tagged, beside, new]
    for rule in ({"keep_versions": 1}, {"max_age_s": 1}, {"max_bytes": 40}):
        assert gone(versions, **rule) == ["a3"]
    assert gone(versions, max_bytes=0) == ["a3", "a4"]


@given(st.data())
def test_a_rule_never_takes_what_a_tag_holds_and_leaves_what_it_allows(data: st.DataObject) -> None:
    versions: list[Kept] = []
    for number in range(1, data.draw(st.integers(0, 12)) + 1):
        of = data.draw(st.lists(st.sampled_from(versions), max_size=2)) if versions else []
        made = version(
            data.draw(st.sampled_from("ab")),
            number,
            age=data.draw(st.integers(0, 9)),
            size=data.draw(st.integers(0, 9)),
            of=of,
            tagged=data.draw(st.booleans()),
            damaged=data.draw(st.booleans()),
        )
        versions.append(replace(made, number=number))
    rule = Retention(keep_versions=2, max_age_s=5.0, max_bytes=20)
    go = {each.reference for each in expired(versions, rule, now=NOW)}
    left = [each for each in versions if each.reference not in go]
    for each in left:
        assert not each.tagged or not go.intersection(each.parents)
    assert not any(each.tagged for each in versions if each.reference in go)
    held = any(each.tagged for each in left)
    assert held or sum(part.size for each in left for part in each.parts) <= 20
    # Asked again, it lets nothing more go.
    assert expired(left, rule, now=NOW) == []


@pytest.mark.parametrize(
    "limits",
    [
        {"keep_versions": 0},
        {"keep_versions": 1.5},
        {"max_age_s": -1},
        {"max_age_s": float("nan")},
        {"max_age_s": "1"},
        {"max_bytes": -1},
    ],
)
def test_a_limit_must_be_a_limit(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(limits))):
        Retention(**limits)


# What is removed


def files(library: Library) -> set[str]:
    return {path.name for path in (library.root / "content").rglob("*") if path.is_file()}


def old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_file_goes_when_nothing_refers_to_it_any_more(library: Library) -> None:
    first = library.put("policy", "p", {"x": b"1", "both": b"shared"})
    second = library.put("policy", "p", {"x": b"22", "both": b"shared"})
    assert library.collect_garbage(grace_s=0).files == 0
    done = library.collect_garbage(retention=Retention(keep_versions=1), grace_s=0)
    assert done.versions == (first.reference,)
    assert (done.files, done.size) == (1, 1)
    assert files(library) == {part.sha256 for part in second.parts.values()}
    assert library.get("policy", "p", version=1) is None
    assert library.verify().intact
    assert second.read("both") == b"shared"


def test_a_number_is_never_given_twice(library: Library) -> None:
    library.put("policy", "p", {})
    library.put("policy", "p", {})
    library.collect_garbage(retention=Retention(max_age_s=0))
    assert library.find() == []
    assert library.put("policy", "p", {}).version == 3


def test_a_tag_or_a_child_with_one_keeps_a_version(library: Library) -> None:
    first = library.put("policy", "p", {"x": b"1"})
    second = library.put("policy", "p", {"x": b"2"}, parents=[first.reference], tags=["champion"])
    third = library.put("policy", "p", {"x": b"3"})
    rule = Retention(max_age_s=0)
    assert library.collect_garbage(retention=rule).versions == (third.reference,)
    library.untag("policy", "p", "champion")
    gone = (first.reference, second.reference)
    assert library.collect_garbage(retention=rule).versions == gone
    assert library.tags(second.reference) == ()
    assert library.children(first.reference) == []


def test_young_files_are_left_alone(library: Library) -> None:
    content = Content(library.root)
    for age, data in ((100, b"old"), (5, b"young")):
        old(content.path(content.store(data).sha256), age)
        (library.root / "partial" / str(age)).write_bytes(data)
        old(library.root / "partial" / str(age), age)
    assert library.collect_garbage().files == 0
    done = library.collect_garbage(grace_s=50)
    assert (done.files, done.size) == (2, 6)
    assert len(files(library)) == 1
    assert [path.name for path in (library.root / "partial").iterdir()] == ["5"]
    assert library.collect_garbage(grace_s=0).files == 2
    assert files(library) == set()


def test_damaged_files_are_kept_for_a_while(library: Library) -> None:
    artifact = library.put("policy", "p", {"x": b"1"})
    content = Content(library.root)
    assert content.set_aside(artifact.parts["x"].sha256) is not None
    (aside,) = library.quarantined()
    assert library.collect_garbage(grace_s=0).files == 0
    old(aside, QUARANTINE_S + 60)
    assert library.collect_garbage(grace_s=0).files == 1
    assert library.quarantined() == []


@pytest.mark.parametrize("grace_s", [-1, float("nan"), None])
def test_a_grace_must_be_a_time(library: Library, grace_s: Any) -> None:
    with pytest.raises(InvalidArgument, match="grace_s must be"):
        library.collect_garbage(grace_s=grace_s)


# Storing while somebody collects


def test_what_is_collected_before_its_row_is_there_is_written_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Content.store

    def store_and_lose(self: Content, source: bytes | Path) -> Part:
        part = stored(self, source)
        with Library(library.root) as other:
            assert other.collect_garbage(grace_s=0).files == 1
        monkeypatch.setattr(Content, "store", stored)
        return part

    monkeypatch.setattr(Content, "store", store_and_lose)
    artifact = library.put("policy", "p", {"x": b"1", "y": b"2"})
    assert artifact.read("x") == b"1"
    assert library.verify().intact


def test_the_same_bytes_that_another_version_has_just_lost_are_written_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.put("policy", "old", {"x": b"same"})
    stored = Content.store

    def store_and_lose(self: Content, source: bytes | Path) -> Part:
        part = stored(self, source)
        monkeypatch.setattr(Content, "store", stored)
        rule = Retention(max_age_s=0)
        with Library(library.root) as other:
            assert other.collect_garbage(retention=rule, grace_s=0).files == 1
        return part

    monkeypatch.setattr(Content, "store", store_and_lose)
    assert library.put("policy", "new", {"x": b"same"}).read("x") == b"same"
    assert library.verify().intact


def test_a_partial_file_that_vanishes_is_written_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced, vanishing = os.replace, [1]

    def vanish(source: Path, target: Path) -> None:
        if vanishing[0]:
            vanishing[0] -= 1
            os.unlink(source)
        replaced(source, target)

    monkeypatch.setattr(os, "replace", vanish)
    assert library.put("policy", "p", {"x": b"1"}).read("x") == b"1"
    vanishing[0] = 2
    with pytest.raises(LibraryUnusable, match="vanished while it was written"):
        library.put("policy", "p", {"x": b"2"})
    assert len(library.find()) == 1
