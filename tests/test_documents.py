"""What the documents say is so: diagrams, tables, examples, links."""

import os
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from esper_lightning.kasmina import GateRules, LifecycleRules
from esper_lightning.leyline import LIVE_STAGES, Event, Gate, RunSummary, SeedStage, mermaid

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


def text(path: str | Path) -> str:
    return (ROOT / path).read_text()


def table(section: str) -> list[list[str]]:
    """Cells of the rows of the first table of a section, without its head."""
    lines = [line.strip() for line in section.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows[2:]


def sections(path: str) -> dict[str, str]:
    """Text below each heading, by the heading without its marks."""
    parts = re.split(r"^#+ +(.*)$", FENCE.sub("", text(path)), flags=re.MULTILINE)
    return {title.strip("`"): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


# Examples


@dataclass(frozen=True)
class Example:
    """Python blocks that share a namespace: one, and those behind it that are marked `continued`.

    The words behind ```` ``` ```` are `python` or `python continued`.
    """

    path: Path
    blocks: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.blocks[0][0]}"

    @property
    def trains(self) -> bool:
        """Whether a Trainer fits something, which takes seconds."""
        return any(".fit(" in code for _, code in self.blocks)

    def run(self) -> None:
        namespace: dict[str, object] = {"__name__": "__main__"}
        for line, code in self.blocks:
            # So that a traceback names the line of the document.
            exec(compile("\n" * line + code, str(self.path), "exec"), namespace)


def examples(path: Path) -> Iterator[Example]:
    blocks: list[tuple[int, str]] = []
    document = path.read_text()
    for fence in FENCE.finditer(document):
        words = fence[1].split()
        if words[:1] != ["python"]:
            continue
        assert words[1:] in ([], ["continued"]), f"{path}: unknown mark {fence[1]!r}"
        if not words[1:] and blocks:
            yield Example(path, tuple(blocks))
            blocks = []
        blocks.append((document.count("\n", 0, fence.start()) + 1, fence[2]))
    if blocks:
        yield Example(path, tuple(blocks))


EXAMPLES = [example for path in DOCUMENTS for example in examples(path)]


@pytest.mark.parametrize(
    "example",
    [pytest.param(each, marks=[pytest.mark.slow] * each.trains) for each in EXAMPLES],
    ids=str,
)
def test_examples_run_as_they_stand(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ):
        example.run()


def test_examples_are_found_and_share_a_namespace_when_marked(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    blocks = ("python\na = 1", "sh\nls", "python continued\nassert a == 1", "python\nb = a")
    path.write_text("".join(f"# Title\n\n```{block}\n```\n\n" for block in blocks))
    first, second = examples(path)
    assert [line for line, _ in first.blocks] == [3, 15]
    first.run()
    with pytest.raises(NameError, match="'a'") as error:
        second.run()
    assert error.traceback[-1].lineno + 1 == 22


# Links


def anchors(path: Path) -> set[str]:
    """As GitHub makes them from headings."""
    titles = re.findall(r"^#+ +(.*)$", FENCE.sub("", path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{path}: {target}"
        assert there.is_relative_to(ROOT), f"{path}: {target}"
        assert not anchor or anchor in anchors(there), f"{path}: {target}"


# docs/lifecycle.md


def test_the_lifecycle_diagram_is_the_transitions_table() -> None:
    diagrams = [
        fence[2] for fence in FENCE.finditer(text("docs/lifecycle.md")) if fence[1] == "mermaid"
    ]
    assert diagrams == [mermaid() + "\n"]


def test_the_lifecycle_page_tells_every_stage_and_gate() -> None:
    page = sections("docs/lifecycle.md")
    stages = {row[0]: row[3] for row in table(page["Stages"])}
    assert list(stages) == [stage.name for stage in SeedStage]
    rules = LifecycleRules()
    for stage in LIVE_STAGES:
        assert stages[stage.name] == f"{rules.min_age(stage)} to {rules.max_age(stage)}"
    assert [row[0] for row in table(page["Gates"])] == [gate.value for gate in Gate]


@pytest.mark.parametrize(
    ("section", "rules"),
    [("Thresholds of the gates", GateRules), ("Rules of the lifecycle", LifecycleRules)],
)
def test_the_lifecycle_page_tells_every_rule_with_its_default(section: str, rules: type) -> None:
    told = {row[0]: row[1] for row in table(sections("docs/lifecycle.md")[section])}
    assert list(told) == [field.name for field in fields(rules)]
    defaults = rules()
    plain = bool | int | float | str | None
    for name, value in told.items():
        default = getattr(defaults, name)
        if isinstance(default, plain):
            assert value == str(default), name


# docs/files.md


def structs(kind: Any) -> set[type[msgspec.Struct]]:
    """Every Struct that a message of type ``kind`` may hold."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        inner = [structs(hint) for hint in typing.get_type_hints(kind).values()]
        return {kind}.union(*inner)
    return set().union(*(structs(argument) for argument in typing.get_args(kind)))


def name_of(kind: type) -> str:
    return kind.__name__


@pytest.mark.parametrize(
    "kind",
    sorted(structs(Event | RunSummary), key=name_of),
    ids=name_of,
)
def test_the_page_on_files_names_every_field(kind: type[msgspec.Struct]) -> None:
    config = kind.__struct_config__
    written = [*([config.tag_field] if config.tag_field else []), *kind.__struct_encode_fields__]
    rows = table(sections("docs/files.md")[kind.__name__])
    assert [row[0] for row in rows] == written
    assert all(row[1] and (row[2] or row[0] == config.tag_field) for row in rows), "empty cell"
