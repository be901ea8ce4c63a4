"""``python -m esper_lightning.urza``: what it says, and how it ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from esper_lightning.urza import Library
from esper_lightning.urza.__main__ import main


@pytest.fixture
def filled(library: Library) -> Library:
    first = library.put("policy", "p", {"x": b"1"}, about={"reward": 1.5}, tags=["champion"])
    library.put("policy", "p", {"x": b"22", "cache/y": b""}, parents=[first.reference])
    library.put("compiled", "f" * 64, {"code": b"333"})
    return library


def told(capsys: pytest.CaptureFixture[str], library: Library, *arguments: str) -> tuple[int, str]:
    code = main([*arguments, "--root", str(library.root)])
    captured = capsys.readouterr()
    # An earlier rich ends a bar that it did not draw with a line break.
    return code, (captured.out + captured.err).lstrip("\n")


def test_ls(filled: Library, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = told(capsys, filled, "ls")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["kind", "name", "version", "stored", "bytes", "tags", "damage"]
    assert [line[:3] for line in lines[1:]] == [
        ["compiled", "f" * 64, "1"],
        ["policy", "p", "1"],
        ["policy", "p", "2"],
    ]
    assert lines[2][-1] == "champion"
    _, out = told(capsys, filled, "ls", "--kind", "policy", "--limit", "1")
    assert out.splitlines()[-1] == "and 1 more: narrow it down, or raise --limit"
    _, out = told(capsys, filled, "ls", "--name", "ff*")
    assert len(out.splitlines()) == 2
    _, out = told(capsys, filled, "ls", "--tag", "champion")
    assert len(out.splitlines()) == 2


def test_show(filled: Library, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = told(capsys, filled, "show", "policy", "p")
    assert code == 0
    assert "version  policy p version 2" in out
    assert "parents  policy p version 1" in out
    assert "part     cache/y, 0 bytes, SHA-256 e3b0c44298fc1c149afbf4c8996fb924" in out
    for which in (("--version", "1"), ("--tag", "champion")):
        _, out = told(capsys, filled, "show", "policy", "p", *which)
        assert "children policy p version 2" in out
        assert "tags     champion" in out
        assert '"reward": 1.5' in out
    code, out = told(capsys, filled, "show", "policy", "p", "--version", "3")
    assert (code, out) == (1, "there is no policy p version 3\n")
    code, out = told(capsys, filled, "show", "policy", "p", "--tag", "worst")
    assert (code, out) == (1, "there is no policy p with the tag worst\n")
    code, out = told(capsys, filled, "show", "Policy", "p")
    assert code == 2
    assert "kind must be a word" in out


def test_verify(filled: Library, capsys: pytest.CaptureFixture[str]) -> None:
    whole = "3 versions, 4 files of 6 bytes: 0 damaged, 0 unsigned\n"
    assert told(capsys, filled, "verify") == (0, whole)
    artifact = filled.get("policy", "p")
    assert artifact is not None
    sha256 = artifact.parts["x"].sha256
    (filled.root / "content" / sha256[:2] / sha256).write_bytes(b"23")
    for _ in range(2):
        code, out = told(capsys, filled, "verify")
        assert code == 1
        assert "damaged: policy p version 2: " in out
        assert out.endswith("1 damaged, 0 unsigned\n")
    code, out = told(capsys, filled, "show", "policy", "p", "--version", "2")
    assert code == 1
    assert "policy p version 2 is damaged" in out


def test_verify_with_another_key(
    filled: Library, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "another key, long enough")
    code, out = told(capsys, filled, "verify")
    assert code == 1
    assert out.count("unsigned: ") == 3
    assert told(capsys, filled, "show", "policy", "p")[0] == 1


def test_gc(filled: Library, capsys: pytest.CaptureFixture[str]) -> None:
    filled.put("policy", "p", {"x": b"4444"})
    (filled.root / "partial" / "leftover").write_bytes(b"55555")
    hour_ago = time.time() - 4000
    os.utime(filled.root / "partial" / "leftover", (hour_ago, hour_ago))
    assert told(capsys, filled, "gc") == (0, "removed 0 versions and 1 files of 5 bytes\n")
    keep = ("--keep-versions", "1", "--grace", "0")
    assert told(capsys, filled, "gc", *keep) == (0, "removed 1 versions and 2 files of 2 bytes\n")
    left = ("--max-age", "0", "--max-bytes", "10000", "--grace", "0")
    assert told(capsys, filled, "gc", *left) == (0, "removed 2 versions and 2 files of 7 bytes\n")
    assert [str(entry.reference) for entry in filled.find()] == ["policy p version 1"]
    code, out = told(capsys, filled, "gc", "--keep-versions", "0")
    assert code == 2
    assert "keep_versions must be a whole number of at least 1" in out


def test_where_no_library_is_none_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPER_URZA_ROOT", str(tmp_path / "nowhere"))
    assert main(["ls"]) == 2
    assert "there is no library in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_cannot_be_used_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: bytes
) -> None:
    (tmp_path / "library.sqlite").write_bytes(b"no database" * 1000)
    assert main(["verify", "--root", str(tmp_path)]) == 2
    assert "is not a database" in capsys.readouterr().err


def test_it_is_a_command(filled: Library) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "esper_lightning.urza", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert run("verify", "--root", str(filled.root)).returncode == 0
    told = run("--help")
    assert told.returncode == 0
    assert "{ls,show,verify,gc}" in told.stdout
    assert run().returncode == 2
