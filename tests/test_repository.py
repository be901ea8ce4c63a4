"""Where things are, and how long they are."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".env.example",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints-lowest.txt",
    "constraints.txt",
    "mkdocs.yml",
    "pyproject.toml",
    "train.py",
}
FOLDERS = {".ci", ".codacy", "callbacks", "conf", "docs", "esper_lightning", "infra", "tests"}
MODULES = [
    path
    for folder in ("callbacks", "conf", "docs", "esper_lightning", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_the_top_level_holds_what_the_design_names() -> None:
    assert {name for name in FILES if not (ROOT / name).is_file()} == set()
    assert {name for name in FOLDERS if not (ROOT / name).is_dir()} == set()
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a git checkout"
)
def test_git_tracks_nothing_else_at_the_top_level() -> None:
    # A checkout may belong to another user than the one who runs the tests.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    top = {name.partition("/")[0] for name in listed.split("\0") if name}
    assert top <= FILES | FOLDERS


@pytest.mark.parametrize("name", ["callbacks", "conf"])
def test_the_package_links_to_top_level_folders(name: str) -> None:
    assert os.readlink(ROOT / "esper_lightning" / name) == f"../{name}"


@pytest.mark.parametrize(("paths", "limit"), [(MODULES, 450), ([ROOT / "train.py"], 99)])
def test_no_module_is_longer_than_one_idea(paths: list[Path], limit: int) -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in paths}
    assert {path: length for path, length in lengths.items() if length > limit} == {}
