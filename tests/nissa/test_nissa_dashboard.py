"""The dashboard, in a real browser."""

import os
import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from served import TOKEN, served, write_run
from synthetic_run import RUN_ID, synthetic_run

from esper_lightning.leyline import (
    AlarmLevel,
    Intervention,
    LayerState,
    RunEnded,
    RunStarted,
    SeedStage,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.server import create_app
from esper_lightning.nissa.server.sources import Listener

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
SLOTS = ("features.0", "features.1", "head")
PLENTY = (1e6, 1e6)
LAYERS = tuple(
    LayerState(path=path, module="Block", num_parameters=100 * (i + 1), reads=reads)
    for i, (path, reads) in enumerate(
        [("features.0", ()), ("features.1", ("features.0",)), ("head", ("features.1",))]
    )
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; CHROMIUM names one"),
]


def run_of(seed=5, epochs=24, slots=SLOTS, **options):
    """A synthetic run that knows its layers."""
    events = synthetic_run(slots, epochs, seed=seed, **options)
    return [replace(e, layers=LAYERS) if isinstance(e, SystemState) else e for e in events]


def named(events, run_id):
    return [replace(event, run_id=run_id) for event in events]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page on mission control; whatever goes wrong in it fails the test."""
    problems, contexts = [], []

    def open_page(url, **options):
        context = browser.new_context(viewport={"width": 1366, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        # Of what was not answered, as after the end of the server, the browser makes an error too.
        page.on("console", lambda said: problems.append(said.text) if is_fault(said) else 0)
        page.on("response", lambda got: problems.append(got.url) if got.status == 404 else 0)
        page.on(
            "request",
            lambda asked: asked.url.startswith((url, "data:")) or problems.append(asked.url),
        )
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def mission(tmp_path):
    """Makes mission control over a listener and a folder."""
    listener = Listener("here")

    def make():
        return create_app(
            runs=[tmp_path / "runs"],
            sources=[listener],
            folder=tmp_path / "kept",
            token=TOKEN,
            every_s=0.02,
            reads=PLENTY,
            changes=PLENTY,
        )

    return make, listener


def is_fault(said):
    return said.type == "error" and not said.text.startswith("Failed to load resource")


def tell(listener, events):
    for event in events:
        listener.tell(event, at=4e9)  # later than any file


def until(page, condition, *arguments):
    """Wait for it from outside: the page's own policy lets nobody evaluate text inside."""
    for _ in range(800):
        if page.evaluate(condition, list(arguments)):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never came true: {condition}")


def told(page):
    """What the page shows, without what every drawing numbers anew."""
    parts = ["#run-told", "#tiles", "#growth", "#network", "#size", "#cost", "#slots", "#reasons"]
    html = [page.locator(part).inner_html() for part in parts]
    return [re.sub(r"clip-\w+|p\d+-| fresh", "", text) for text in html]


def test_it_waits_for_a_first_run(mission, opened):
    make, listener = mission
    with served(make()) as url:
        page = opened(url)
        until(page, "document.querySelector('#link').textContent === 'connected'")
        assert page.locator("h1").inner_text() == "No run yet"
        tell(listener, run_of()[:30])
        until(page, "([id]) => document.querySelector('h1').textContent === id", RUN_ID)


def test_a_live_run_grows_before_ones_eyes_and_a_reload_shows_the_same(mission, opened):
    make, listener = mission
    events = run_of()
    ends = [i + 1 for i, event in enumerate(events) if isinstance(event, SystemState)]
    with served(make()) as url:
        tell(listener, events[: ends[3]])
        page = opened(url)
        until(page, "document.querySelector('#run-told').textContent.startsWith('epoch 4 of 24')")
        assert page.locator("#run-state").inner_text() == "training"
        lanes = page.locator("#growth .lane").count()
        assert lanes == len(SLOTS)
        assert page.locator("#network .node.slot").count() == len(SLOTS)
        grown = page.locator("#network .branch").count()
        for start, end in zip([ends[3], *ends[4:]], ends[4:], strict=False):
            tell(listener, events[start:end])
        until(page, "document.querySelector('#run-told').textContent.startsWith('epoch 24 of 24')")
        tell(listener, events[ends[-1] :])
        until(page, "document.querySelector('#run-state').textContent === 'finished'")
        assert page.locator("#network .branch").count() > grown
        assert page.locator("#growth .diamond").count() > 0
        page.wait_for_timeout(1200)  # the entry in the list is sent every second
        seen = told(page)
        page.reload()
        until(page, "document.querySelector('#run-state').textContent === 'finished'")
        until(page, "document.querySelector('#growth .lane') !== null")
        page.wait_for_timeout(200)
        assert told(page) == seen


def test_an_alert_appears_and_is_acknowledged(mission, opened):
    make, listener = mission
    with served(make()) as url:
        tell(listener, run_of()[:30])
        page = opened(url)
        until(page, "document.querySelector('#growth .lane') !== null")
        assert page.locator("#alerts").inner_text() == "Nothing is wrong."
        undone = Intervention(
            run_id=RUN_ID, epoch=5, step=60, level=AlarmLevel.SEVERE, alarm="NaN", restored=4
        )
        tell(listener, [undone])
        until(page, "document.querySelector('.alert.firing') !== null")
        assert "tolaria_rollback" in page.locator("#shout").inner_text()
        page.get_by_role("button", name="Acknowledge tolaria_rollback").click()
        page.get_by_label("Your name").fill("Ada")
        page.get_by_label("Token").fill("not the token at all")
        page.locator("#ack").get_by_role("button", name="Acknowledge").click()
        until(page, "!document.querySelector('#ack-error').hidden")
        assert page.locator("#ack-error").inner_text() == "this needs the token"
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        until(page, "document.querySelector('.alert.acknowledged') !== null")
        assert "Ada looks after it" in page.locator("#alerts").inner_text()
        assert page.locator("#shout").is_hidden()


def test_a_finished_run_is_compared_with_another(mission, opened, tmp_path):
    make, _ = mission
    write_run(tmp_path / "runs" / "grown", run_of())
    write_run(tmp_path / "runs" / "other", named(run_of(seed=9), "fedcba987654"))
    with served(make()) as url:
        page = opened(url)
        until(page, "document.querySelector('#growth .lane') !== null")
        page.get_by_label("Run", exact=True).select_option(label="grown")
        until(page, "document.querySelector('h1').textContent === 'grown'")
        until(page, "document.querySelectorAll('#growth .curve.main').length === 1")
        assert page.locator("#growth .curve.other-0").count() == 0
        page.locator("#compare summary").click()
        page.get_by_label("other").check()
        until(page, "document.querySelectorAll('#growth .curve.other-0').length === 1")
        assert page.locator("#compare-count").inner_text() == "1"
        assert "with=" in page.url
        page.reload()  # the address says it all
        until(page, "document.querySelectorAll('#growth .curve.other-0').length === 1")
        assert page.locator("h1").inner_text() == "grown"


def test_keys_move_zoom_and_read_out(mission, opened, tmp_path):
    make, _ = mission
    write_run(tmp_path / "runs" / "grown", run_of())
    with served(make()) as url:
        page = opened(url)
        until(page, "document.querySelector('#growth .lane') !== null")
        page.locator("#growth").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert "epoch 2, val/acc" in page.locator("#readout").text_content()
        until(
            page, "document.querySelector('#network-when').textContent === 'at the end of epoch 2'"
        )
        before = page.locator("#growth .tick").all_inner_texts()
        page.keyboard.press("+")
        page.keyboard.press("+")
        until(page, "document.querySelector('#growth .cursor') !== null")
        page.wait_for_timeout(100)
        assert page.locator("#growth .tick").all_inner_texts() != before
        page.keyboard.press("Escape")
        until(page, "document.querySelector('#growth .cursor') === null")
        assert page.locator("#growth .tick").all_inner_texts() == before
        page.locator("#growth").hover(position={"x": 400, "y": 120})
        until(page, "!document.querySelector('#tip').hidden")
        assert page.locator("#tip").inner_text().startswith("epoch ")


def test_a_drag_takes_the_figure_along(mission, opened, tmp_path):
    make, _ = mission
    write_run(tmp_path / "runs" / "long", run_of(epochs=100))
    with served(make()) as url:
        page = opened(url)
        until(page, "document.querySelector('#growth .lane') !== null")
        for _ in range(3):
            page.get_by_label("Zoom in").click()
        page.wait_for_timeout(100)
        box = page.locator("#growth").bounding_box()
        left, right, y = box["x"] + 250, box["x"] + 550, box["y"] + 120

        def epoch_at(x):
            page.mouse.move(x, y)
            until(page, "!document.querySelector('#tip').hidden")
            return int(page.locator("#tip strong").inner_text().split()[1])

        held = epoch_at(right)
        page.mouse.down()
        for step in range(1, 31):
            page.mouse.move(right + (left - right) * step / 30, y)
            page.wait_for_timeout(10)
        page.mouse.up()
        page.wait_for_timeout(100)
        assert abs(epoch_at(left + 1) - held) <= 1
        assert epoch_at(right) > held


def test_a_search_finds_why(mission, opened, tmp_path):
    make, _ = mission
    write_run(tmp_path / "runs" / "grown", run_of())
    with served(make()) as url:
        page = opened(url)
        until(page, "document.querySelector('#growth .lane') !== null")
        everything = page.locator("#reasons").inner_text()
        page.get_by_label("Search what happened").fill("rent")
        until(page, "([all]) => document.querySelector('#reasons').innerText !== all", everything)
        texts = page.locator("#reasons li").all_inner_texts()
        assert texts
        assert all("rent" in text for text in texts)
        page.get_by_label("Search what happened").fill("")
        until(page, "([all]) => document.querySelector('#reasons').innerText === all", everything)


def test_what_a_run_says_stays_text(mission, opened):
    make, listener = mission
    evil = '<img src=x onerror="document.title=1">'
    started = RunStarted(run_id=evil, slots=(evil,), host_parameters=1, max_epochs=3, versions={})
    moved = StageChanged(
        run_id=evil, epoch=0, step=1, slot=evil, before=SeedStage.DORMANT,
        after=SeedStage.GERMINATED, blueprint=evil, reason=evil,
    )  # fmt: skip
    state = next(e for e in synthetic_run((evil,), 3) if isinstance(e, SystemState))
    ended = RunEnded(run_id=evil, epoch=1, step=1, outcome=f"failed: {evil}")
    with served(make()) as url:
        tell(listener, [started, moved, replace(state, run_id=evil), ended])
        page = opened(url)
        until(page, "document.querySelector('#reasons li b') !== null")
        assert evil in page.locator("#reasons").inner_text()
        assert page.locator("img").count() == 0


def test_a_run_that_failed_before_its_first_epoch_says_why(mission, opened):
    make, listener = mission
    ended = RunEnded(run_id=RUN_ID, epoch=0, step=0, outcome="failed: there is no data")
    with served(make()) as url:
        tell(listener, [run_of()[0], ended])
        page = opened(url)
        until(page, "document.querySelector('#run-told').textContent.endsWith('there is no data')")
        assert page.locator("#run-state").inner_text() == "failed"


def test_a_lost_line_is_told_and_taken_up_again(mission, opened):
    make, listener = mission
    events = run_of()
    with served(make()) as url:
        tell(listener, events[:30])
        page = opened(url)
        until(page, "document.querySelector('#growth .lane') !== null")
        page.evaluate("window.kept = document.querySelector('#run-told').textContent")
    until(page, "document.querySelector('#link').textContent.startsWith('connection lost')")
    page.goto("about:blank")  # what its attempts log is no fault of the page


def serious(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        (each["id"], [node["html"][:120] for node in each["nodes"]][:5])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1366, 900), (390, 844)])
def test_everybody_can_use_it(mission, opened, tmp_path, scheme, size):
    make, listener = mission
    write_run(tmp_path / "runs" / "other", named(run_of(seed=9), "fedcba987654"))
    undone = Intervention(
        run_id=RUN_ID, epoch=5, step=60, level=AlarmLevel.SEVERE, alarm="NaN", restored=4
    )
    with served(make()) as url:
        tell(listener, [*run_of()[:60], undone])
        page = opened(url, color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": size[0], "height": size[1]})
        until(page, "document.querySelector('.alert.firing') !== null")
        page.wait_for_timeout(200)
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="Acknowledge tolaria_rollback").click()
        assert serious(page) == []


def test_the_page_knows_every_stage():
    folder = Path(__file__).parents[2] / "esper_lightning" / "nissa" / "dashboard"
    table = (folder / "drawing.js").read_text().partition("export const STAGES")[2]
    known = re.findall(r"^  (\w+): \{ live", table, flags=re.MULTILINE)
    assert known == [stage.name.lower() for stage in SeedStage]
    style = (folder / "style.css").read_text()
    for name in known:  # a colour in the light, and one in the dark
        assert style.count(f"  --{name}: ") == 2
