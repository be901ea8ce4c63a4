"""``python -m esper_lightning.evidence dashboard``: the tables of this package."""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from esper_lightning.evidence.bus.servers import programs, started
from esper_lightning.evidence.bus.training import key_in_environment
from esper_lightning.evidence.dashboard import hostile, load, long_runs, pages, servers
from esper_lightning.evidence.report import write
from esper_lightning.leyline import Event
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal
from esper_lightning.nissa.server import Listener, Serving, create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PLENTY = (1e6, 1e6)
"""Nobody is refused for asking often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        paints: of each page.
        lags: epochs that are told, each way.
        epochs: of runs whose memory is measured.
        viewers: at once.
        watched: epochs that those see.
        requests: hostile ones.
    """

    paints: int = 20
    lags: int = 60
    epochs: tuple[int, ...] = (1_000, 10_000, 20_000)
    viewers: tuple[int, ...] = (1, 200)
    watched: int = 40
    requests: int = 3_000


QUICK = Size(paints=1, lags=3, epochs=(60,), viewers=(3,), watched=3, requests=50)
"""That it works, no more."""


def measure(run: Path, size: Size, work: Path, *, browses: bool) -> dict[str, object]:
    """Everything, printed table by table; the figures by table.

    Args:
        run: folder of a finished run.
        size: of everything.
        work: an empty folder.
        browses: whether there is a browser.
    """
    figures: dict[str, object] = {}
    if browses:
        with pages.browser() as browsing:
            paints = _paints(browsing, run, size, work)
            _tell("A page that the browser has not seen", pages.render_paints(paints))
            lags = _lags(browsing, run, size, work)
            _tell("From telling an epoch to the frame that shows it", pages.render_lags(lags))
            figures |= {"paint": paints, "lag": lags}
    runs = work / "long"
    with servers.mission(runs, work / "kept") as program:
        found = load.memory(program, run, runs, list(size.epochs))
        _tell("One run that goes on and on", load.render_memory(found))
        figures["memory"] = found
        if browses:
            with pages.browser() as browsing:
                heap = pages.heap(browsing, program.url, max(size.epochs))
            print(f"\nA page on it: drawn in {heap.drawn_ms:.0f} ms, heap {heap.heap_mib:.1f} MiB")
            figures["heap"] = heap
    watched = []
    for num in size.viewers:
        runs = work / f"watched{num}"
        with servers.mission(runs, work / "kept") as program:
            watched.append(load.viewers(program, run, runs, num=num, epochs=size.watched))
    _tell("Viewers of a live run, two epochs a second", load.render_viewers(watched))
    telling = load.telling(run, num=500)
    print(f"\nTelling an event: p50 {telling.p50_us:.1f} us, p99 {telling.p99_us:.1f} us")
    refused = _hostile(run, size, work)
    print(f"\nHostile requests: {refused.failed} of {refused.num} failed, {refused.statuses}")
    return figures | {"viewers": watched, "telling": telling, "hostile": refused}


def _paints(browsing: "Browser", run: Path, size: Size, work: Path) -> list[pages.Paint]:
    runs, logs = work / "paint", work / "tensorboard"
    long_runs.write(runs / "run", [read_journal(run / JOURNAL_NAME)])
    found = []
    with servers.mission(runs, work / "kept") as program:
        pages.paint(browsing, "", program.url, pages.DRAWN, num=1)  # the browser itself starts
        found.append(
            pages.paint(browsing, "mission control", program.url, pages.DRAWN, num=size.paints)
        )
    if importlib.util.find_spec("tensorboard") is None:
        print("\nTensorBoard is not measured: pip install 'esper-lightning[tensorboard]'")
        return found
    pages.tensorboard_logs(run, logs)
    with servers.tensorboard(logs, work / "kept") as program:
        url = f"{program.url}/#timeseries"
        pages.paint(browsing, "", url, pages.TENSORBOARD_DRAWN, num=1)
        found.append(
            pages.paint(browsing, "TensorBoard", url, pages.TENSORBOARD_DRAWN, num=size.paints)
        )
    return found


def _lags(browsing: "Browser", run: Path, size: Size, work: Path) -> list[pages.Lag]:
    def serve(way: str, tell: Callable[[list[Event]], None], **options: object) -> pages.Lag:
        app = create_app(
            folder=work / "kept",
            token=servers.TOKEN,
            reads=PLENTY,
            **options,  # type: ignore[arg-type]
        )
        with Serving(app) as serving:
            return pages.lag(browsing, way, serving.address, tell, run, size.lags)

    listener = Listener()

    def tell(events: list[Event]) -> None:
        for event in events:
            listener.tell(event)

    runs = work / "lag"
    found = [
        serve("by its folder", lambda events: long_runs.write(runs / "run", [events]), runs=[runs]),
        serve("in the same process", tell, runs=[], sources=[listener]),
    ]
    bus = next(iter(programs()), None)
    if bus is None:
        print("\nNothing is heard over a bus: pip install 'esper-lightning[embedded]'")
        return found
    with key_in_environment(), started(bus) as server, closing(server.publisher()) as publisher:

        def publish(events: list[Event]) -> None:
            for event in events:
                publisher.publish(event)

        found.append(serve(f"over the bus, {bus}", publish, runs=[], bus=server.url))
    return found


def _hostile(run: Path, size: Size, work: Path) -> hostile.Hostile:
    secret = work / "secret.txt"
    secret.write_bytes(hostile.SECRET)
    app = create_app(
        runs=[run], folder=work / "kept", token=servers.TOKEN, reads=PLENTY, changes=PLENTY
    )
    with Serving(app) as serving:
        return hostile.requests(serving.address, secret, num=size.requests)


def _tell(title: str, told: str) -> None:
    print(f"\n{title}\n\n{told}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence dashboard")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--quick", action="store_true", help="that it works, no more")
    parser.add_argument("--no-browser", action="store_true", help="nothing that needs one")
    parser.add_argument("--epochs", type=int, nargs="+", help="of runs whose memory is measured")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/dashboard.json"))
    options = parser.parse_args(arguments)
    if not (options.run / JOURNAL_NAME).is_file():
        parser.error(f"there is no {JOURNAL_NAME} in {options.run}; python train.py writes one")
    can_browse = importlib.util.find_spec("playwright") is not None and pages.chromium() is not None
    if not options.no_browser and not can_browse:
        parser.error("this needs playwright and a Chromium, which CHROMIUM names; or --no-browser")
    size = QUICK if options.quick else Size()
    if options.epochs:
        size = replace(size, epochs=tuple(options.epochs))
    with TemporaryDirectory() as work:
        figures = measure(options.run, size, Path(work), browses=not options.no_browser)
    write(options.out, " ".join(["dashboard", *arguments]), figures)
