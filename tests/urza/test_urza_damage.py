"""What is not what was stored is found, set aside, and never handed out."""

import logging
import os
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from esper_lightning.leyline import Signer
from esper_lightning.urza import (
    Artifact,
    BadSignature,
    Damaged,
    Library,
    LibraryReadOnly,
    Reference,
    Removed,
    Retention,
)

BYTES = bytes(range(256)) * 8
EXPLODED: list[str] = []


class Hostile:
    """Opening it runs code."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return EXPLODED.append, ("opened",)


def file_of(library: Library, artifact: Artifact, part: str = "x") -> Path:
    sha256 = artifact.parts[part].sha256
    return library.root / "content" / sha256[:2] / sha256


def edit(library: Library, statement: str, *values: object) -> None:
    """What somebody does who can write the database and has no key."""
    with sqlite3.connect(library.root / "library.sqlite") as connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


# Files


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def hostile(path: Path) -> None:
    path.write_bytes(pickle.dumps(Hostile()))


def hostile_of_the_same_size(path: Path) -> None:
    path.write_bytes(pickle.dumps(Hostile()).ljust(path.stat().st_size, b"\0"))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_elsewhere(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    elsewhere.write_bytes(b"\0" * path.stat().st_size)
    path.unlink()
    path.symlink_to(elsewhere)


DAMAGE = [
    flipped,
    truncated,
    longer,
    empty,
    hostile,
    hostile_of_the_same_size,
    a_pipe,
    a_folder,
    a_link_elsewhere,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("found_by", ["reading", "verifying"])
def test_a_damaged_file_is_set_aside_and_never_handed_out(
    library: Library,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    found_by: str,
) -> None:
    artifact = library.put("compiled", "ab", {"w": b"whole", "x": BYTES})
    path = file_of(library, artifact)
    damage(path)
    with caplog.at_level(logging.WARNING):
        if found_by == "reading":
            with pytest.raises(Damaged, match="compiled ab version 1 is damaged"):
                artifact.read("x")
        else:
            assert set(library.verify().damaged) == {artifact.reference}
    assert EXPLODED == []
    assert "compiled ab version 1 is damaged" in caplog.text
    (aside,) = (library.root / "quarantine").iterdir()
    assert aside.name.startswith(artifact.parts["x"].sha256)
    assert str(aside) in caplog.text
    assert not path.exists()
    # From then on: nobody is given it, and who names it is told.
    assert library.get("compiled", "ab") is None
    with Library(library.root) as again:
        assert again.get("compiled", "ab") is None
        with pytest.raises(Damaged, match="compiled ab version 1 is damaged .*store it again"):
            again.get("compiled", "ab", version=1)
    assert library.find()[0].damage is not None
    with pytest.raises(Damaged):
        artifact.read("x")
    found = library.verify()
    assert not found.intact
    assert set(found.damaged) == {artifact.reference}
    # Stored again it is a new version.
    fresh = library.put("compiled", "ab", {"x": BYTES})
    assert fresh.version == 2
    assert fresh.read("x") == BYTES
    newest = library.get("compiled", "ab")
    assert newest is not None
    assert newest.reference == fresh.reference


def test_a_missing_file_is_damage(library: Library) -> None:
    artifact = library.put("policy", "p", {"x": BYTES})
    file_of(library, artifact).unlink()
    with pytest.raises(Damaged, match="its file is missing"):
        artifact.read("x")
    assert library.quarantined() == []
    assert library.get("policy", "p") is None


def test_swapped_files_are_both_found(library: Library, tmp_path: Path) -> None:
    one = library.put("policy", "one", {"x": b"1" * 100})
    two = library.put("policy", "two", {"x": b"2" * 100})
    first, second = file_of(library, one), file_of(library, two)
    first.rename(tmp_path / "between")
    second.rename(first)
    (tmp_path / "between").rename(second)
    for artifact in (one, two):
        with pytest.raises(Damaged, match="its bytes have changed"):
            artifact.read("x")
    assert len(library.quarantined()) == 2


def test_all_that_shared_a_damaged_file_is_marked(library: Library) -> None:
    one = library.put("policy", "p", {"x": BYTES})
    two = library.put("policy", "q", {"y": BYTES}, tags=["champion"])
    other = library.put("policy", "r", {"y": b"other"})
    flipped(file_of(library, one))
    with pytest.raises(Damaged):
        one.read("x")
    assert library.get("policy", "q") is None
    with pytest.raises(Damaged, match="policy q version 1 is damaged"):
        library.get("policy", "q", tag="champion")
    assert other.read("y") == b"other"
    assert [entry.reference for entry in library.find() if entry.damage] == [
        one.reference,
        two.reference,
    ]


def test_an_older_version_stands_in_only_where_none_was_named(library: Library) -> None:
    library.put("policy", "p", {"x": b"old"})
    new = library.put("policy", "p", {"x": BYTES}, tags=["champion"])
    truncated(file_of(library, new))
    with pytest.raises(Damaged):
        new.read("x")
    stands_in = library.get("policy", "p")
    assert stands_in is not None
    assert stands_in.version == 1
    for words in ({"version": 2}, {"tag": "champion"}):
        with pytest.raises(Damaged, match="policy p version 2 is damaged"):
            library.get("policy", "p", **words)  # type: ignore[arg-type]


def test_storing_the_bytes_again_puts_a_whole_file_in_the_place_of_a_damaged_one(
    library: Library,
) -> None:
    one = library.put("policy", "p", {"x": BYTES})
    flipped(file_of(library, one))
    library.put("policy", "q", {"x": BYTES})
    assert one.read("x") == BYTES


def test_a_file_that_became_whole_before_it_was_set_aside_is_read(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = library.put("policy", "p", {"x": BYTES})
    path = file_of(library, artifact)
    flipped(path)
    entered = library._database.writing

    def as_it_is_stored_again() -> object:
        path.write_bytes(BYTES)
        return entered()

    monkeypatch.setattr(library._database, "writing", as_it_is_stored_again)
    assert artifact.read("x") == BYTES
    assert library.quarantined() == []


def test_what_garbage_collection_removed_is_not_called_damaged(library: Library) -> None:
    artifact = library.put("policy", "p", {"x": BYTES})
    library.put("policy", "p", {"x": b"new"})
    library.collect_garbage(retention=Retention(keep_versions=1), grace_s=0)
    with pytest.raises(Removed, match="policy p version 1 was removed from this library"):
        artifact.read("x")


def test_damage_that_cannot_be_set_aside_is_still_told(
    library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = library.put("policy", "p", {"x": BYTES})
    flipped(file_of(library, artifact))

    def refuse() -> None:
        raise LibraryReadOnly("it cannot be written")

    monkeypatch.setattr(library._database, "check_writable", refuse)
    with pytest.raises(Damaged):
        artifact.read("x")
    assert "stays where it is: it cannot be written" in caplog.text
    assert file_of(library, artifact).exists()


# The database


def test_another_key_opens_nothing(root: Path, signer: Signer) -> None:
    with Library(root, signer=signer) as library:
        library.put("policy", "p", {"x": BYTES})
    with Library(root, signer=Signer(b"another key of 16+")) as other:
        for words in ({}, {"version": 1}):
            with pytest.raises(BadSignature, match="policy p version 1 is not signed with the key"):
                other.get("policy", "p", **words)  # type: ignore[arg-type]
        found = other.verify()
        assert set(found.unsigned) == {Reference("policy", "p", 1)}
        assert found.damaged == {}
        assert not found.intact
        assert other.put("policy", "p", {"x": b"mine"}).version == 2
        mine = other.get("policy", "p")
        assert mine is not None
        assert mine.read("x") == b"mine"
    with Library(
        root, signer=Signer(b"another key of 16+", previous=[b"the key of these tests"])
    ) as both:
        old = both.get("policy", "p", version=1)
        assert old is not None
        assert old.read("x") == BYTES


EDITS = {
    "signature": ("UPDATE artifacts SET signature = ?", "0" * 64),
    "signature that is bytes": ("UPDATE artifacts SET signature = ?", b"0" * 64),
    "signature that is a number": ("UPDATE artifacts SET signature = ?", 5),
    "manifest": ("UPDATE artifacts SET manifest = replace(manifest, ?, '2.0')", "1.5"),
    "manifest that is bytes": (
        "UPDATE artifacts SET manifest = CAST(manifest AS BLOB) WHERE version = ?",
        1,
    ),
    "manifest that is a number": ("UPDATE artifacts SET manifest = ?", 10**12),
    "manifest that is no JSON": ("UPDATE artifacts SET manifest = ?", "{"),
    "manifest that is huge": ("UPDATE artifacts SET manifest = ?", "x" * 2_000_000),
    "version": ("UPDATE artifacts SET version = ?", 2),
    "name": ("UPDATE artifacts SET name = ?", "q"),
    "kind": ("UPDATE artifacts SET kind = ?", "compiled"),
}


@pytest.mark.parametrize(("statement", "value"), EDITS.values(), ids=EDITS)
def test_an_edited_row_is_refused(library: Library, statement: str, value: object) -> None:
    library.put("policy", "p", {"x": BYTES}, about={"speed": 1.5})
    before = library.get("policy", "p")
    assert before is not None
    edit(library, statement, value)
    (entry,) = library.find()
    with pytest.raises(BadSignature):
        library.get(entry.reference.kind, entry.reference.name)
    assert set(library.verify().unsigned) == {entry.reference}
    assert before.read("x") == BYTES


def test_a_manifest_of_another_version_is_refused(library: Library) -> None:
    library.put("policy", "p", {"x": b"old and known to be bad"})
    library.put("policy", "p", {"x": b"new"})
    edit(
        library,
        "UPDATE artifacts SET (manifest, signature) = "
        "(SELECT manifest, signature FROM artifacts WHERE version = 1) WHERE version = 2",
    )
    message = "the manifest of policy p version 1 stands where that of policy p version 2 should"
    with pytest.raises(BadSignature, match=message):
        library.get("policy", "p")


def test_a_row_that_somebody_else_wrote_is_refused(library: Library, tmp_path: Path) -> None:
    payload = pickle.dumps(Hostile())
    with Library(tmp_path / "theirs", signer=Signer(b"the key of an attacker")) as theirs:
        artifact = theirs.put("compiled", "ab", {"x": payload})
        planted = file_of(theirs, artifact)
        with sqlite3.connect(theirs.root / "library.sqlite") as connection:
            row = connection.execute("SELECT * FROM artifacts").fetchone()
        connection.close()
    path = file_of(library, artifact)
    path.parent.mkdir(parents=True)
    path.write_bytes(planted.read_bytes())
    edit(library, f"INSERT INTO artifacts VALUES ({', '.join('?' * len(row))})", *row)
    with pytest.raises(BadSignature):
        library.get("compiled", "ab")
    assert EXPLODED == []


def test_a_signature_of_something_else_is_none(library: Library, signer: Signer) -> None:
    library.put("policy", "p", {})
    with sqlite3.connect(library.root / "library.sqlite") as connection:
        (manifest,) = connection.execute("SELECT manifest FROM artifacts").fetchone()
    connection.close()
    edit(library, "UPDATE artifacts SET signature = ?", signer.sign(manifest.encode()))
    with pytest.raises(BadSignature):
        library.get("policy", "p")


def test_bytes_flipped_in_the_database_are_never_accepted(library: Library) -> None:
    about = {"note": "here is what the manifest says"}
    library.put("policy", "p", {"x": BYTES}, about=about)
    library.close()
    path = library.root / "library.sqlite"
    data = bytearray(path.read_bytes())
    data[data.index(b"what the manifest says")] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadSignature):
        library.get("policy", "p")
