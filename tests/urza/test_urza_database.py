"""What is no library, cannot be written, is locked or full is told, and nothing is lost."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from esper_lightning.leyline import Signer
from esper_lightning.urza import (
    Damaged,
    Library,
    LibraryBusy,
    LibraryError,
    LibraryFull,
    LibraryReadOnly,
    LibraryUnusable,
    tables,
)

NAME = "library.sqlite"


def ask(root: Path, statement: str) -> Any:
    connection = sqlite3.connect(root / NAME)
    try:
        with connection:
            found = connection.execute(statement).fetchone()
    finally:
        connection.close()
    return found and found[0]


# What is no library


def test_a_root_that_is_a_file_is_refused(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "root").write_text("a file")
    for root in (tmp_path / "root", tmp_path / "root" / "below"):
        with pytest.raises(LibraryUnusable, match="root.* cannot be used as part of a library"):
            Library(root)


@pytest.mark.parametrize("data", [b"no database at all" * 100, os.urandom(8192)])
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    root: Path, key: bytes, data: bytes
) -> None:
    root.mkdir()
    (root / NAME).write_bytes(data)
    with pytest.raises(LibraryUnusable, match=f"{NAME} is not a database; move it away"):
        Library(root)
    assert (root / NAME).read_bytes() == data


def test_a_folder_in_the_place_of_the_database_is_refused(root: Path, key: bytes) -> None:
    (root / NAME).mkdir(parents=True)
    with pytest.raises(LibraryUnusable, match="cannot be used: .*unable to open"):
        Library(root)


@pytest.mark.parametrize("setting", ["user_version = 1", "application_id = 5", "user_version = 0"])
def test_a_database_of_something_else_is_refused_and_left_alone(
    root: Path, key: bytes, setting: str
) -> None:
    root.mkdir()
    ask(root, "CREATE TABLE theirs (x)")
    ask(root, f"PRAGMA {setting}")
    before = (root / NAME).read_bytes()
    with pytest.raises(LibraryUnusable, match="is a database of something else"):
        Library(root)
    assert (root / NAME).read_bytes() == before


def test_an_empty_file_becomes_a_library(root: Path, key: bytes) -> None:
    root.mkdir()
    (root / NAME).touch()
    with Library(root) as library:
        assert library.put("policy", "p", {}).version == 1


def test_a_database_of_a_later_release_is_refused_and_left_alone(
    library: Library, root: Path
) -> None:
    library.put("policy", "p", {})
    library.close()
    ask(root, f"PRAGMA user_version = {tables.SCHEMA_VERSION + 1}")
    with pytest.raises(LibraryUnusable, match=r"written by a later release \(.* version 2, .* 1\)"):
        Library(root)
    assert ask(root, "SELECT count(*) FROM artifacts") == 1


def test_a_database_of_an_earlier_release_is_brought_up_to_date(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.put("policy", "p", {"x": b"1"})
    library.close()

    def remember_color(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE artifacts ADD COLUMN color TEXT DEFAULT 'green'")

    monkeypatch.setattr(tables, "SCHEMA_VERSION", 2)
    monkeypatch.setitem(tables.UPGRADES, 1, remember_color)
    for _ in range(2):
        with Library(root) as again:
            artifact = again.get("policy", "p")
            assert artifact is not None
            assert artifact.read("x") == b"1"
        assert ask(root, "PRAGMA user_version") == 2
        assert ask(root, "SELECT color FROM artifacts") == "green"


def test_bringing_up_to_date_happens_as_a_whole_or_not(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.put("policy", "p", {})
    library.close()

    def fail(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE artifacts ADD COLUMN color TEXT")
        raise InterruptedError

    with monkeypatch.context() as later:
        later.setattr(tables, "SCHEMA_VERSION", 2)
        later.setitem(tables.UPGRADES, 1, fail)
        with pytest.raises(InterruptedError):
            Library(root)
    assert library.get("policy", "p") is not None
    assert ask(root, "SELECT count(*) FROM pragma_table_info('artifacts') WHERE name='color'") == 0


def test_there_is_an_upgrade_from_every_earlier_version() -> None:
    assert set(tables.UPGRADES) == set(range(1, tables.SCHEMA_VERSION))


def test_it_is_in_wal_mode(library: Library, root: Path) -> None:
    assert ask(root, "PRAGMA journal_mode") == "wal"
    assert ask(root, "PRAGMA application_id") == int.from_bytes(b"Urza")


def test_a_database_that_was_overwritten_in_the_middle_is_noticed(
    library: Library, root: Path
) -> None:
    for number in range(50):
        library.put("policy", f"p{number}", {}, about={"padding": "x" * 500})
    library.close()
    data = bytearray((root / NAME).read_bytes())
    data[4096 : len(data) - 4096] = os.urandom(len(data) - 8192)
    (root / NAME).write_bytes(data)
    with pytest.raises(LibraryUnusable, match="damaged|is not a database"), Library(root) as broken:
        broken.verify()


def test_a_library_that_was_removed_begins_anew(library: Library, root: Path) -> None:
    library.put("policy", "p", {"x": b"1"})
    assert library.get("policy", "p") is not None
    shutil.rmtree(root)
    assert library.get("policy", "p") is None
    assert library.put("policy", "p", {"x": b"2"}).version == 1
    with Library(root) as again:
        assert again.verify().versions == 1


# Locked


def test_a_writer_waits_and_then_says_so_while_readers_go_on(root: Path, signer: Signer) -> None:
    with Library(root, signer=signer, busy_s=0.2) as library:
        library.put("policy", "p", {"x": b"1"})
        other = sqlite3.connect(root / NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LibraryBusy, match="kept .*library.sqlite locked for 0.2 s"):
            library.put("policy", "p", {"x": b"2"})
        artifact = library.get("policy", "p")
        assert artifact is not None
        assert artifact.read("x") == b"1"
        assert len(library.find()) == 1
        other.rollback()
        other.close()
        assert library.put("policy", "p", {"x": b"2"}).version == 2


# No room


def until_full(store: Callable[[], object], error: type[Exception] = LibraryFull) -> int:
    """How often it could be done."""
    for number in range(10_000):
        try:
            store()
        except error:
            return number
    raise AssertionError("it was never full")


def test_a_part_that_does_not_fit_leaves_nothing(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.put("policy", "p", {"x": b"1"})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(LibraryFull, match=r"no space is left in .*urza gc --root"):
            library.put("policy", "p", {"x": b"2"})
    assert list((root / "partial").iterdir()) == []
    found = library.verify()
    assert found.intact
    assert found.versions == 1
    assert library.put("policy", "p", {"x": b"2"}).version == 2


def test_a_row_that_does_not_fit_leaves_nothing(library: Library) -> None:
    library.put("policy", "p", {"x": b"1"})
    driver = library._database._writer._driver
    assert driver is not None
    (pages,) = driver.execute("PRAGMA page_count").fetchone()
    driver.execute(f"PRAGMA max_page_count = {pages}")
    until_full(lambda: library.put("policy", "q", {}, about={"padding": "x" * 10_000}))
    stored = len(library.find())
    driver.execute("PRAGMA max_page_count = 1000000")
    assert library.verify().intact
    assert library.put("policy", "q", {}).version == stored


LIMITED = """
import resource, sys
from esper_lightning.urza import Library, LibraryFull
library = Library(sys.argv[1])
library.put("policy", "p", {"x": b"1" * 100_000})
library.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    library.put("policy", "p", {"x": b"2" * 3_000_000})
except LibraryFull as error:
    print(error)
print(library.verify().intact, library.get("policy", "p").version)
"""


def test_a_limit_of_file_sizes_is_met_in_the_middle_of_a_file(root: Path, key: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(root)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "no space is left" in done.stdout
    assert done.stdout.endswith("True 1\n")
    assert list((root / "partial").iterdir()) == []


def mounted(target: Path, *options: str) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a file system")
    done = subprocess.run(["mount", *options, str(target)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted(disk, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_fills_up_loses_nothing(small_disk: Path, key: bytes) -> None:
    (small_disk / "to be freed").write_bytes(b"0" * 200_000)
    with Library(small_disk) as library:
        stored = until_full(lambda: library.put("policy", "p", {"x": os.urandom(50_000)}))
        with (small_disk / "ballast").open("ab", buffering=0) as ballast:
            until_full(lambda: ballast.write(b"0" * 4096), error=OSError)
        with pytest.raises(LibraryFull):
            library.put("policy", "q", {})
        with pytest.raises(LibraryFull):
            library.put("policy", "q", {"x": b"1"})
        found = library.verify()
        assert (found.versions, found.intact) == (stored, True)
        newest = library.get("policy", "p")
        assert newest is not None
        assert len(newest.read("x")) == 50_000
        (small_disk / "to be freed").unlink()
        library.put("policy", "q", {"x": b"1"})
    with Library(small_disk) as again:
        assert again.verify().versions == stored + 1


# Not writable


@pytest.fixture
def frozen(library: Library, root: Path, tmp_path: Path) -> Iterator[Path]:
    """The library's folder with one version, as somebody sees it who cannot write there."""
    library.put("policy", "p", {"x": b"1"}, tags=["champion"])
    library.close()
    if os.geteuid() != 0:
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        yield root
        for path in folders:
            path.chmod(0o755)
        return
    seen = tmp_path / "seen"
    seen.mkdir()
    mounted(seen, "--bind", str(root))
    mounted(seen, "-o", "remount,ro,bind")
    yield seen
    subprocess.run(["umount", "-l", str(seen)], check=True)


def test_a_folder_that_cannot_be_written_can_be_read(frozen: Path, root: Path) -> None:
    before = sorted(root.rglob("*"))
    with Library(frozen) as reader:
        assert reader.read_only
        for words in ({}, {"version": 1}, {"tag": "champion"}):
            artifact = reader.get("policy", "p", **words)  # type: ignore[arg-type]
            assert artifact is not None
            assert artifact.read("x") == b"1"
        assert len(reader.find()) == 1
        assert reader.verify().intact
        refused = "cannot be written by this user; what is there can be read"
        with pytest.raises(LibraryReadOnly, match=refused):
            reader.put("policy", "p", {"x": b"2"})
        with pytest.raises(LibraryReadOnly, match=refused):
            reader.tag(artifact.reference, "best")
        with pytest.raises(LibraryReadOnly, match=refused):
            reader.untag("policy", "p", "champion")
        assert reader.get("policy", "p") is not None
    assert sorted(root.rglob("*")) == before


def test_damage_where_nothing_can_be_written_is_told_every_time(
    library: Library, root: Path, frozen: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (file,) = (path for path in (root / "content").rglob("*") if path.is_file())
    file.write_bytes(b"2")
    with Library(frozen) as reader:
        for _ in range(2):
            artifact = reader.get("policy", "p")
            assert artifact is not None
            with pytest.raises(Damaged):
                artifact.read("x")
        assert len(reader.verify().damaged) == 1
    assert "stays where it is" in caplog.text
    assert file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="the same folder, writable for one and not the other")
def test_a_reader_that_cannot_write_follows_one_who_can(library: Library, frozen: Path) -> None:
    def version() -> int:
        found = reader.get("policy", "p")
        assert found is not None
        return found.version

    with Library(frozen) as reader:
        assert version() == 1
        for number in (2, 3):
            library.put("policy", "p", {})  # in a log beside the database
            assert version() == number
        library.close()  # in the database, without a log
        assert version() == 3
        library.put("policy", "p", {})
        assert version() == 4


def test_where_nothing_can_be_made_it_says_so(frozen: Path, key: bytes) -> None:
    for root in (frozen / "content", frozen / "new"):
        with pytest.raises(LibraryReadOnly, match="holds no library|cannot be used by this user"):
            Library(root)


def test_a_database_of_an_earlier_release_that_cannot_be_written_is_refused(
    frozen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SCHEMA_VERSION", 2)
    with pytest.raises(LibraryReadOnly, match="is of an earlier release and cannot be brought up"):
        Library(frozen)


def test_every_error_of_a_library_is_a_library_error() -> None:
    for kind in (Damaged, LibraryBusy, LibraryFull, LibraryReadOnly, LibraryUnusable):
        assert issubclass(kind, LibraryError)
