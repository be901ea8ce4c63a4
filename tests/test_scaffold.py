"""The scaffold that the project implements: its table, its pages, and what they say is so."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PACKAGE = ROOT / "esper_lightning"
DESIGN = ROOT / "docs/design/detailed_design"
PAGES = {page.stem.partition("-")[2]: page for page in sorted(DESIGN.glob("*.md"))}
NOT_BUILT = "**Not built yet.**"
SUBSYSTEMS = sorted(
    folder.name
    for folder in PACKAGE.iterdir()
    if (folder / "__init__.py").is_file() and not folder.is_symlink()
)


@dataclass(frozen=True)
class Row:
    """A row of the table of docs/decisions/scaffold.md."""

    kind: str
    what: str
    state: str

    def __str__(self) -> str:
        return self.what


def rows() -> list[Row]:
    lines = (ROOT / "docs/decisions/scaffold.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [Row(kind, what.strip("`"), state) for _, kind, what, state in cells]


ROWS = rows()


def names(kind: str) -> list[Row]:
    return [row for row in ROWS if row.kind == kind and row.state == "here"]


# The table


def test_every_row_is_of_a_known_kind_and_state() -> None:
    assert {row.kind for row in ROWS} == {"command", "path", "symbol", "variable"}
    states = {row.state for row in ROWS}
    assert all(state == "here" or re.match(r"planned: \w.*, step \d$", state) for state in states)
    told = [(row.kind, row.what) for row in ROWS]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("row", names("path"), ids=str)
def test_a_path_is_there(row: Row) -> None:
    assert (ROOT / row.what).exists()


@pytest.mark.parametrize("row", names("symbol"), ids=str)
def test_a_symbol_can_be_imported(row: Row) -> None:
    module, _, name = row.what.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("row", names("variable"), ids=str)
def test_a_variable_is_in_the_example_with_a_comment(row: Row) -> None:
    blocks = (ROOT / ".env.example").read_text().split("\n\n")
    (block,) = [block for block in blocks if f"\n# {row.what}=" in block]
    assert re.search("nothing\\s(?:#\\s)?reads|[Rr]ead by", block), f"{row.what}: who reads it?"


CHEAP = {
    "pip install -e .[dev]": [
        *("pip", "install", "--dry-run", "--no-deps", "--no-build-isolation", "-q", "-e", ".[dev]")
    ],
    "pytest": ["pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/leyline"],
    "pytest -m integration tests/oona/test_messaging_integration.py": [
        *("pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", "integration"),
        "tests/oona/test_messaging_integration.py",
    ],
    "ruff check .": ["ruff", "check", "esper_lightning/leyline"],
    "ruff format --check .": ["ruff", "format", "--check", "esper_lightning/leyline"],
    "mypy": ["mypy", "--follow-imports", "silent", "esper_lightning/leyline/errors.py"],
    "pylint --rcfile .codacy/tools-configs/pylint.rc esper_lightning callbacks train.py": [
        *("pylint", "--rcfile", ".codacy/tools-configs/pylint.rc", "esper_lightning/leyline")
    ],
}
"""What is run in a test for each command of the table: the same tool on little."""


SERVER = "uvicorn esper_lightning.nissa.server:create_app --factory"


@pytest.mark.slow
def test_a_server_answers(tmp_path: Path) -> None:
    assert SERVER in [row.what for row in names("command")]
    tool, *arguments = SERVER.split()
    command = [str(BIN / tool), *arguments, "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            address = None
            while address is None:
                line = server.stderr.readline()
                assert line, "it ended"
                address = re.search(r"http://127\.0\.0\.1:\d+", line)
            with urllib.request.urlopen(f"{address[0]}/health", timeout=30) as answer:
                assert answer.status == 200
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in names("command") if row.what != SERVER], ids=str)
def test_a_command_works(row: Row) -> None:
    tool, *arguments = CHEAP[row.what]
    assert row.what.split()[0] == tool
    command = [str(BIN / tool), *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def exists(row: Row) -> bool:
    if row.kind == "path":
        return (ROOT / row.what).exists()
    if row.kind == "symbol":
        module = row.what.rpartition(".")[0].removeprefix("esper_lightning.")
        path = PACKAGE / module.replace(".", "/")
        return path.exists() or path.with_suffix(".py").exists()
    if row.kind == "command":  # by the file or the module that it is about
        file = re.search(r"\S+\.py", row.what)
        module = re.search(r"esper_lightning\.([\w.]+):", row.what)
        if file is not None:
            return (ROOT / file[0]).exists()
        assert module is not None, f"{row.what}: no test can tell whether it exists"
        path = PACKAGE / module[1].replace(".", "/")
        return path.is_dir() or path.with_suffix(".py").exists()
    return row.what in (ROOT / ".env.example").read_text()


@pytest.mark.parametrize("row", [row for row in ROWS if row.state != "here"], ids=str)
def test_what_is_planned_does_not_exist(row: Row) -> None:
    assert not exists(row), f"{row.what} is there now: mark its row in scaffold.md as here"


def test_what_exists_is_seen() -> None:
    assert all(exists(row) for kind in ("path", "symbol", "variable") for row in names(kind))
    found = Row("command", "uvicorn esper_lightning.tolaria.module:create_app", "planned")
    assert exists(found)
    assert exists(Row("command", "pytest -m slow tests/test_scaffold.py", "planned"))


# Subsystems and their pages


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_whether_its_subsystem_is_built(name: str) -> None:
    built = (PACKAGE / name).is_dir()
    text = PAGES[name].read_text()
    assert (NOT_BUILT in text) == (not built)
    state = "here" if built else "planned"
    (row,) = [row for row in ROWS if row.what == f"esper_lightning.{name}.__all__"]
    assert row.state.partition(":")[0] == state


@pytest.mark.parametrize("name", SUBSYSTEMS)
def test_a_subsystem_cites_its_page_and_the_page_names_its_public_api(name: str) -> None:
    module = importlib.import_module(f"esper_lightning.{name}")
    if name not in PAGES:
        assert name == "evidence", f"{name} has no page in {DESIGN}"
        return
    assert f"Design: {PAGES[name].relative_to(ROOT)}" in (module.__doc__ or "")
    section = PAGES[name].read_text().partition("## Public API\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    told = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted(told) == sorted(module.__all__)


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda page: page.stem)
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text())
    assert named or NOT_BUILT in page.read_text()
    for path, function in named:
        if not function and NOT_BUILT in page.read_text():
            continue
        assert (ROOT / path).is_file(), path
        assert f"def {function}" in (ROOT / path).read_text(), f"{path}::{function}"


@pytest.mark.parametrize("name", [*SUBSYSTEMS, "callbacks", "conf"])
def test_the_tests_mirror_the_tree(name: str) -> None:
    assert list((ROOT / "tests" / name).rglob("test_*.py")), f"tests/{name} holds no test"


# What the scaffold's files hold


def needed(project: dict[str, Any], extra: str) -> Iterator[Requirement]:
    """Requirements of an extra, and of the project's own extras that it names."""
    for requirement in map(Requirement, project["optional-dependencies"][extra]):
        if requirement.name == project["name"]:
            for inner in requirement.extras:
                yield from needed(project, inner)
        else:
            yield requirement


def test_everything_that_development_needs_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*map(Requirement, project["dependencies"]), *needed(project, "dev")]
    assert {"torch", "ruff", "mypy", "pytest", "pylint"} <= {each.name for each in asked}
    for requirement in asked:
        if requirement.marker is None or requirement.marker.evaluate():
            version = importlib.metadata.version(requirement.name)
            assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_redis_of_the_compose_file_keeps_what_it_is_given() -> None:
    compose = yaml.safe_load((ROOT / "infra/docker-compose.redis.yml").read_text())
    redis = compose["services"]["redis"]
    assert re.match(r"redis:7\b", redis["image"])
    assert redis["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]
    assert all(isinstance(word, str) for word in redis["command"]), "quote yes and no"
    command = " ".join(redis["command"])
    assert "--appendonly yes --appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command
    (mount,) = redis["volumes"]
    volume, _, folder = mount.partition(":")
    assert volume in compose["volumes"]
    assert folder == "/data", "the image keeps its data there"
    (port,) = redis["ports"]
    assert port == "127.0.0.1:${REDIS_PORT:-6379}:6379", "without a password: loopback only"
    assert "localhost:6379" in (ROOT / ".env.example").read_text()


def test_the_plan_names_every_stream_and_service() -> None:
    plan = (ROOT / "docs/project/implementation_plan.md").read_text()
    for name in ("REDIS_URL", "/metrics", "esper_lightning.nissa.server:create_app"):
        assert name in plan
    streams = [row.what for row in ROWS if row.what.startswith("OONA_")]
    assert len(streams) == 4
    assert all(f"`{stream}`" in plan for stream in streams)
