"""Pages in a real browser: when they are painted, and when they show what has just happened."""

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from esper_lightning.evidence.dashboard import long_runs
from esper_lightning.evidence.report import table
from esper_lightning.leyline import Event, SystemState
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

DRAWN = "#growth .curve.main"
"""Of the dashboard: accuracy is drawn."""

TENSORBOARD_DRAWN = "line-chart svg path, line-chart canvas, .series-view svg"
"""Of TensorBoard: a chart is there."""

_LOOK = """
window.drawnAt = null;
const look = () => {
  if (document.querySelector(SELECTOR)) window.drawnAt = performance.now();
  else requestAnimationFrame(look);
};
look();
"""

_SENT = """
['navigation', 'resource'].flatMap((kind) => performance.getEntriesByType(kind))
  .reduce((sum, each) => sum + each.transferSize, 0)
"""

_WATCH = """
window.shown = [];
const watch = () => {
  const told = document.querySelector('#run-told')?.textContent ?? '';
  const epoch = Number(/epoch (\\d+)/.exec(told)?.[1] ?? -1);
  if (epoch !== (window.shown.at(-1) ?? [-1])[0]) window.shown.push([epoch, Date.now() / 1000]);
  requestAnimationFrame(watch);
};
watch();
"""


class Paint(msgspec.Struct, frozen=True, kw_only=True):
    """When a page was there, in a browser that has not seen it; medians, in ms since it was asked.

    Attributes:
        page: which.
        first_ms: something was painted.
        drawn_ms: a curve was drawn.
        worst_ms: the slowest of these.
        kib: that were sent.
        num: how often it was opened.
    """

    page: str
    first_ms: float
    drawn_ms: float
    worst_ms: float
    kib: float
    num: int


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """From the moment at which an epoch was told to the frame that shows it, in ms.

    Attributes:
        way: how mission control hears of the run.
        p50_ms, p95_ms, worst_ms: of the lags.
        num: epochs.
    """

    way: str
    p50_ms: float
    p95_ms: float
    worst_ms: float
    num: int


class Heap(msgspec.Struct, frozen=True, kw_only=True):
    """A page on a long run.

    Attributes:
        epochs: of the run.
        drawn_ms: until it is drawn.
        heap_mib: that the page's script holds.
    """

    epochs: int
    drawn_ms: float
    heap_mib: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A page, and when it was painted, in ms."""

    page: "Page"
    first_ms: float
    drawn_ms: float
    kib: float


def chromium() -> str | None:
    """The browser: that of the variable ``CHROMIUM``, or one that is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def browser() -> Iterator["Browser"]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright  # pylint: disable=import-outside-toplevel

    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium(), args=FLAGS.split())
        yield running
        running.close()


@contextlib.contextmanager
def opened(browsing: "Browser", url: str, drawn: str, *, more: str = "") -> Iterator[Opened]:
    """A page in a browser that remembers nothing; it is there once ``drawn`` is."""
    context = browsing.new_context(viewport={"width": 1366, "height": 900})
    page = context.new_page()
    page.add_init_script(_LOOK.replace("SELECTOR", repr(drawn)) + more)
    page.goto(url, wait_until="commit")
    _until(page, lambda: page.evaluate("window.drawnAt !== null"))
    first = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? window.drawnAt"
    )
    try:
        yield Opened(page, first, page.evaluate("window.drawnAt"), page.evaluate(_SENT) / 1024)
    finally:
        context.close()


def paint(browsing: "Browser", name: str, url: str, drawn: str, *, num: int) -> Paint:
    """Open a page again and again."""
    seen = []
    for _ in range(num):
        with opened(browsing, url, drawn) as page:
            seen.append(page)
    return Paint(
        page=name,
        first_ms=median(each.first_ms for each in seen),
        drawn_ms=median(each.drawn_ms for each in seen),
        worst_ms=max(each.drawn_ms for each in seen),
        kib=median(each.kib for each in seen),
        num=num,
    )


def lag(
    browsing: "Browser",
    way: str,
    url: str,
    tell: Callable[[list[Event]], None],
    run: Path,
    num: int,
) -> Lag:
    """Tell a run epoch by epoch, at moments nobody can foresee, and see when the page shows it.

    Args:
        browsing: the browser.
        way: how it is told, in words.
        url: of mission control.
        tell: tells the events of an epoch.
        run: that is told.
        num: epochs.
    """
    draw = random.Random(0)
    told_at: dict[int, float] = {}
    epochs = long_runs.epochs_of(run, num + 2, run_id=f"lag-{way}")
    tell(next(epochs))
    tell(next(epochs))
    with opened(browsing, url, DRAWN, more=_WATCH) as seen:
        for number, events in enumerate(epochs, start=3):
            time.sleep(draw.uniform(0.3, 0.8))
            told_at[number] = time.time()
            tell(events)
        last = max(told_at)
        _until(seen.page, lambda: seen.page.evaluate("window.shown.at(-1)[0]") == last)
        shown = dict(seen.page.evaluate("window.shown"))
    lags = [1000 * (shown[number] - at) for number, at in told_at.items()]
    p50, p95 = np.percentile(np.asarray(lags), [50, 95])
    return Lag(way=way, p50_ms=float(p50), p95_ms=float(p95), worst_ms=max(lags), num=num)


def heap(browsing: "Browser", url: str, epochs: int) -> Heap:
    """Open mission control on a run that is long."""
    with opened(browsing, url, DRAWN) as seen:
        seen.page.wait_for_timeout(1000)
        used = seen.page.evaluate("performance.memory.usedJSHeapSize")
        return Heap(epochs=epochs, drawn_ms=seen.drawn_ms, heap_mib=used / 2**20)


def tensorboard_logs(run: Path, logs: Path) -> None:
    """The metrics of a run, as TensorBoard reads them."""
    from torch.utils.tensorboard import SummaryWriter  # pylint: disable=import-outside-toplevel

    with SummaryWriter(str(logs)) as writer:
        for event in read_journal(run / JOURNAL_NAME):
            if isinstance(event, SystemState):
                for name, value in event.metrics.items():
                    writer.add_scalar(name, value, event.epoch)


def render_paints(paints: list[Paint]) -> str:
    """A Markdown table."""
    rows = [
        [
            p.page,
            f"{p.first_ms:.0f}",
            f"{p.drawn_ms:.0f}",
            f"{p.worst_ms:.0f}",
            f"{p.kib:.0f}",
            str(p.num),
        ]
        for p in paints
    ]
    return table(["page", "first paint ms", "curve drawn ms", "worst", "KiB", "num"], rows)


def render_lags(lags: list[Lag]) -> str:
    """A Markdown table."""
    rows = [
        [
            each.way,
            f"{each.p50_ms:.0f}",
            f"{each.p95_ms:.0f}",
            f"{each.worst_ms:.0f}",
            str(each.num),
        ]
        for each in lags
    ]
    return table(["told", "p50 ms", "p95 ms", "worst", "num"], rows)


def _until(page: "Page", holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    ends = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError(f"{page.url} did not show it within {timeout_s:.0f} s")
        page.wait_for_timeout(10)
