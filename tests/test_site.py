"""The documentation as a site: it builds without a warning, and needs nothing from elsewhere."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

from esper_lightning.karn import CATALOGUE, Blueprint
from esper_lightning.leyline import TRANSITIONS, Attachment

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FROM_THE_TOP = {"index.md", "contributing.md", "changelog.md"}


class Page(HTMLParser):
    """What a page loads, where it leads, and which anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loads: set[str] = set()
        self.links: set[str] = set()
        self.anchors = {""}
        self.classes: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.classes |= set(found.get("class", "").split())
        if "src" in found:
            self.loads.add(found["src"])
        if "href" in found:
            goes_on = found.get("rel") in {"prev", "next", "canonical", "edit"}
            (self.loads if tag == "link" and not goes_on else self.links).add(found["href"])


def is_elsewhere(target: str) -> bool:
    return bool(re.match(r"([a-z]+:)?//|data:|mailto:", target))


def target_of(page: Page, link: str) -> tuple[Path, str]:
    name, _, anchor = link.partition("#")
    there = page.path if name in ("", ".") else (page.path.parent / unquote(name)).resolve()
    return (there / "index.html" if there.is_dir() else there), unquote(anchor)


def dead_links(pages: dict[Path, Page]) -> list[str]:
    dead = []
    for page in pages.values():
        for link in (link for link in page.links | page.loads if not is_elsewhere(link)):
            there, anchor = target_of(page, link)
            if not there.is_file():
                dead.append(f"{page.path.name}: {link}")
            elif there in pages and anchor not in pages[there].anchors | {"__tabbed_1"}:
                dead.append(f"{page.path.name}: {link} (no such anchor)")
    return dead


def loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> list[str]:
    loads = [f"{page.path.name}: {url}" for page in pages.values() for url in page.loads]
    styles = [
        f"{style.name}: {url}"
        for style in site.rglob("*.css")
        for url in re.findall(r"(?:url\(|@import )['\"]?([^'\")]+)", style.read_text())
    ]
    found = [(entry, entry.partition(": ")[2]) for entry in loads + styles]
    return [entry for entry, url in found if is_elsewhere(url) and not url.startswith("data:")]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    site = tmp_path.resolve()
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}

    expected = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} | FROM_THE_TOP
    built = {str(path.relative_to(site).with_suffix(".md")) for path in pages}
    assert built == expected
    assert dead_links(pages) == []
    assert loaded_from_elsewhere(site, pages) == []
    # A diagram would load its renderer from elsewhere; the drawing stands in its place.
    assert not [path.name for path, page in pages.items() if "mermaid" in page.classes]
    assert 'src="figures/lifecycle.svg"' in (site / "lifecycle.html").read_text()
    # Blocks that go on from the one before are blocks of code as the others.
    assert "python continued" not in "".join(path.read_text() for path in pages)

    index = json.loads((site / "search/search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {str(path.relative_to(site)) for path in pages} <= found

    for page in (path for path in pages if path.parent.name == "api" and path.stem != "index"):
        package = importlib.import_module(f"esper_lightning.{page.stem}")
        # By the last word: what bears the name of its own module is found there.
        there = {anchor.rpartition(".")[2] for anchor in pages[page].anchors}
        assert set(package.__all__) - there == set(), page
        assert ":class:" not in page.read_text()
    subsystems = {path.parent.name for path in (ROOT / "esper_lightning").glob("*/__init__.py")}
    assert {path.stem for path in (DOCS / "api").glob("*.md")} == subsystems - {"conf"} | {"index"}


# Pictures


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of ``docs/figures``."""
    monkeypatch.syspath_prepend(str(DOCS / "figures"))
    spec = importlib.util.spec_from_file_location(name, DOCS / f"figures/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``docs/figures/draw.py``."""
    return loaded("draw", monkeypatch)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``docs/figures/blueprints.py``."""
    return loaded("blueprints", monkeypatch)


def test_pictures_are_as_they_are_drawn(drawing: ModuleType) -> None:
    there = {path.name for path in (DOCS / "figures").glob("*.svg")}
    assert there == set(drawing.PICTURES)
    for name, draw in drawing.PICTURES.items():
        assert (DOCS / "figures" / name).read_text() == draw(), "run python docs/figures/draw.py"


def test_the_drawing_of_the_lifecycle_has_every_stage_and_an_arrow_for_every_move(
    drawing: ModuleType,
) -> None:
    svg = drawing.lifecycle()
    assert set(drawing.PLACES) == set(TRANSITIONS)
    assert all(f">{stage.name}</text>" in svg for stage in TRANSITIONS)
    assert svg.count("<path d=") - svg.count("<marker") == sum(map(len, TRANSITIONS.values()))
    moves = {(before, after) for before, afters in TRANSITIONS.items() for after in afters}
    assert set(drawing.WAYS) | drawing.UNUSED <= moves


# Cards of the blueprints


def test_cards_are_as_the_catalogue_has_them(cards: ModuleType) -> None:
    made = cards.files()
    pictures = {path.relative_to(DOCS) for path in (DOCS / "figures/blueprints").iterdir()}
    assert set(made) == pictures | {Path("blueprints.md")}
    for path, text in made.items():
        assert (DOCS / path).read_text() == text, "run python docs/figures/blueprints.py"


def test_a_card_tells_what_its_row_says(cards: ModuleType) -> None:
    page = cards.files()[Path("blueprints.md")]
    for row in CATALOGUE.values():
        _, _, card = page.partition(f"### {row.id} {row.name}\n")
        card, _, _ = card.partition("\n### ")
        assert f"| [{row.id} {row.name}](#{row.id.lower()}-{row.name}) |" in page
        assert row.citation.partition(", arXiv:")[0] in card
        assert all(f"`{name}`: {allowed}" in card for name, allowed in row.parameters.items())
        assert all(kind.value in card for kind in row.kinds)


@pytest.mark.parametrize("row", CATALOGUE.values(), ids=lambda row: row.name)
def test_a_picture_is_small_and_shows_a_way_from_its_input_to_its_output(
    row: Blueprint, cards: ModuleType
) -> None:
    svg = cards.picture(row)
    assert len(svg.encode()) < 6000
    read = "h" if row.attachment is Attachment.SERIES else "x"
    assert svg.count(f">{read}</text>") == svg.count(f">f({read})</text>") == 1
    numbers = [float(each) for each in re.findall(r' (?:x|y|cx|cy)="(-?[\d.]+)"', svg)]
    assert 0 <= min(numbers) <= max(numbers) <= 720


def test_a_picture_has_the_sizes_and_the_order_of_what_runs(cards: ModuleType) -> None:
    def told(name: str) -> list[str]:
        svg = cards.picture(CATALOGUE[name]).replace("\N{MULTIPLICATION SIGN}", "x")
        return re.findall(r">([^<>\n]+)</?t", svg)[1:]

    assert told("inverted_residual") == [
        *("h", "group norm", "4 groups", "conv 1x1", "32 → 128", "GELU"),
        *("depthwise 3x3", "128", "GELU", "conv 1x1", "128 → 32", "f(h)"),
    ]
    assert "4 heads of 8" in told("token_attention")
    assert sum("100 times" in each for each in told("slow_kernel")) == 3
    assert told("exploding_gain")[-3:] == ["+", "x 1e6", "f(h)"]
