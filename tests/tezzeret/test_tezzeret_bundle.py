"""Compiled code as bytes: the same again, and nothing that leads elsewhere."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from esper_lightning.leyline import EsperError
from esper_lightning.tezzeret import BadBundle, bundle
from esper_lightning.tezzeret.bundle import (
    CACHE_VARIABLE,
    cache_folder,
    load,
    pack_libraries,
    unpack_libraries,
)

FILES = {
    "ab/kernel.so": b"\x7fELF" + bytes(2000),
    "ab/kernel.cpp": b"int main() {}",
    "cd/ef/graph.py": b"x = 1",
    "cd/header.h": b"",
    "cd/code.cubin": bytes(range(256)),
    "cd/about.json": b"{}",
}
LEFT_OUT = {"ab/lock": b"", "cd/kernel.o": b"object", "cd/notes.txt": b"words"}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return written(tmp_path / "cache", FILES | LEFT_OUT)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def archive(*entries: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in entries:
            made.writestr(name, data)
    return packed.getvalue()


def temporary() -> set[Path]:
    return set(Path(os.environ["TMPDIR"]).glob("tezzeret-*"))


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_what_was_packed_is_unpacked_for_this_user_only(cache: Path, tmp_path: Path) -> None:
    unpack_libraries(pack_libraries(cache), tmp_path / "again")
    assert read(tmp_path / "again") == FILES
    modes = {path.stat().st_mode for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert {stat.S_IMODE(mode) for mode in modes} == {0o700}


def test_the_same_files_make_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    packed = pack_libraries(cache)
    other = written(tmp_path / "other", dict(reversed(FILES.items())))
    for number, path in enumerate(sorted(other.rglob("*"))):
        os.utime(path, (number, number))
    assert pack_libraries(other) == packed
    assert len(packed) < sum(map(len, FILES.values())), "they are compressed"
    (other / "ab/kernel.cpp").write_bytes(b"int main() { }")
    assert pack_libraries(other) != packed


def test_of_no_files_there_is_an_empty_archive(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    unpack_libraries(pack_libraries(tmp_path / "cache"), tmp_path / "again")
    assert read(tmp_path) == {}


@pytest.mark.parametrize("name", ["../outside.so", "ab/../../outside.so", "/outside.so"])
def test_an_archive_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "cache"
    told = name if name.startswith("..") or "/../" in name else f"{tmp_path}{name}"
    with pytest.raises(BadBundle, match="leads out of the folder"):
        unpack_libraries(archive(("ab/kernel.so", b"x"), (told, b"x")), folder)
    assert not (tmp_path / "outside.so").exists()


def test_one_that_is_too_large_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_MAX_LIBRARIES", 1000)
    packed = archive(("a.so", bytes(600)), ("b.so", bytes(600)))
    assert len(packed) < 600
    with pytest.raises(BadBundle, match="more than 1000 bytes"):
        unpack_libraries(packed, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def corrupted() -> bytes:
    packed = bytearray(archive(("ab/kernel.so", os.urandom(100) * 20)))
    packed[60:100] = bytes(40)
    return bytes(packed)


def told_smaller() -> bytes:
    """Says of its only file that it has 10 bytes."""
    packed = archive(("a.so", bytes(5000)))
    return packed.replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"no archive at all",
        archive(("a.so", b"x" * 1000))[:-30],
        corrupted(),
        told_smaller(),
        archive(("a", b"x"), ("a/b.so", b"x")),
        archive(("n" * 5000, b"x")),
    ],
    ids=["empty", "text", "cut", "corrupted", "lying", "contrary", "long"],
)
def test_what_is_no_archive_of_files_is_refused(tmp_path: Path, packed: bytes) -> None:
    with pytest.raises(BadBundle, match="cannot be unpacked"):
        unpack_libraries(packed, tmp_path / "cache")


def test_within_the_cache_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "/before")
    with cache_folder(tmp_path):
        assert os.environ[CACHE_VARIABLE] == str(tmp_path)
    assert os.environ[CACHE_VARIABLE] == "/before"


@pytest.mark.parametrize("before", [None, "/before"])
def test_it_is_back_after_errors_within_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(CACHE_VARIABLE, before)

    def fail() -> None:
        try:
            raise ValueError("first")
        except ValueError:
            del os.environ[CACHE_VARIABLE]
            raise KeyError("second") from None

    for _ in range(2):
        with pytest.raises(KeyError, match="second"), cache_folder(tmp_path):
            fail()
        assert os.environ.get(CACHE_VARIABLE) == before


@pytest.mark.parametrize("code", [b"", b"garbage", b"\x80\x04N."], ids=["empty", "text", "none"])
def test_garbage_is_no_bundle_and_leaves_nothing(
    code: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "/before")
    with pytest.raises(BadBundle, match="torch cannot load it"):
        load(code, archive(("a.so", b"x")))
    with pytest.raises(BadBundle, match="cannot be unpacked"):
        load(code, b"garbage")
    assert os.environ[CACHE_VARIABLE] == "/before"
    assert temporary() == set()
    assert issubclass(BadBundle, EsperError)
