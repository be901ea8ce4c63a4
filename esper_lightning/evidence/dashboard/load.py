"""What mission control keeps of a very long run, and what many who watch cost."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from esper_lightning.evidence.dashboard import long_runs
from esper_lightning.evidence.dashboard.servers import Program
from esper_lightning.evidence.report import table
from esper_lightning.nissa.server import Listener

_BATCH = 100
"""Epochs that are written at once; a run writes one."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a server holds after so many epochs of one run.

    Attributes:
        epochs: that it has heard.
        journal_mib: that they are.
        rss_mib: of the server.
        page_kib: of the run, as the page is told it.
    """

    epochs: int
    journal_mib: float
    rss_mib: float
    page_kib: float


class Viewers(msgspec.Struct, frozen=True, kw_only=True):
    """Many who watch one live run.

    Attributes:
        viewers: open streams.
        p50_ms, p95_ms, worst_ms: from writing an epoch to its arrival, over all viewers and epochs.
        missed: epochs that did not reach somebody.
        cpu: of one core, that the server used meanwhile.
        rss_mib: of the server.
        epochs: that were written, two a second.
    """

    viewers: int
    p50_ms: float
    p95_ms: float
    worst_ms: float
    missed: int
    cpu: float
    rss_mib: float
    epochs: int


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """What a run in the same process pays for telling one event."""

    p50_us: float
    p99_us: float
    num: int


def memory(program: Program, run: Path, runs: Path, at: list[int]) -> list[Memory]:
    """Write a run that has no end, and look at the server at these numbers of epochs."""
    folder, found = runs / "long", []
    epochs = long_runs.epochs_of(run, max(at), run_id="long")
    found.append(Memory(epochs=0, journal_mib=0.0, rss_mib=program.rss_mib(), page_kib=0.0))
    batch = []
    for written, events in enumerate(epochs, start=1):
        batch.append(events)
        if written % _BATCH == 0 or written in at:
            long_runs.write(folder, batch)
            batch = []
        if written in at:
            found.append(_look(program, folder, written))
    return found


def _look(program: Program, folder: Path, epochs: int) -> Memory:
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        entries = json.loads(_get(f"{program.url}/api/runs"))
        entry = next((each for each in entries if each["run_id"] == "long"), None)
        if entry is not None and entry["epochs"] == epochs:
            told = _get(f"{program.url}/api/runs/{entry['id']}")
            size = sum(path.stat().st_size for path in folder.iterdir())
            return Memory(
                epochs=epochs,
                journal_mib=size / 2**20,
                rss_mib=program.rss_mib(),
                page_kib=len(told) / 1024,
            )
        time.sleep(0.2)
    raise TimeoutError(f"{epochs} epochs were not heard within 300 s")


def viewers(program: Program, run: Path, runs: Path, *, num: int, epochs: int) -> Viewers:
    """Open so many streams on one live run, and write epochs."""
    return asyncio.run(_viewers(program, run, runs, num, epochs))


async def _viewers(program: Program, run: Path, runs: Path, num: int, count: int) -> Viewers:
    told = list(long_runs.epochs_of(run, count + 2, run_id="watched"))
    long_runs.write(runs / "watched", told[:2])
    key = ""
    while not key:
        await asyncio.sleep(0.2)
        entries = json.loads(await asyncio.to_thread(_get, f"{program.url}/api/runs"))
        key = next((each["id"] for each in entries if each["run_id"] == "watched"), "")
    arrived: list[dict[int, float]] = [{} for _ in range(num)]
    ready = asyncio.Semaphore(0)
    watching = [asyncio.create_task(_watch(program.url, key, seen, ready)) for seen in arrived]
    for _ in watching:
        await ready.acquire()
    began, cpu = time.monotonic(), program.cpu_s()
    written = {}
    for number, events in enumerate(told[2:], start=3):
        written[number] = time.monotonic()
        long_runs.write(runs / "watched", [events])
        await asyncio.sleep(0.5)
    await asyncio.sleep(2.0)
    used = (program.cpu_s() - cpu) / (time.monotonic() - began)
    rss = program.rss_mib()
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    lags = sorted(
        1000 * (seen[number] - at)
        for seen in arrived
        for number, at in written.items()
        if number in seen
    )
    return Viewers(
        viewers=num,
        p50_ms=lags[len(lags) // 2],
        p95_ms=lags[int(0.95 * len(lags))],
        worst_ms=lags[-1],
        missed=num * count - len(lags),
        cpu=used,
        rss_mib=rss,
        epochs=count,
    )


async def _watch(url: str, key: str, seen: dict[int, float], ready: asyncio.Semaphore) -> None:
    """Hear one stream, as a browser does."""
    there = urlsplit(url)
    reader, writer = await asyncio.open_connection(there.hostname, there.port, limit=2**24)
    try:
        asked = f"GET /api/stream?run={key} HTTP/1.1\r\nHost: {there.netloc}\r\n\r\n"
        writer.write(asked.encode())
        is_run = False
        while line := await reader.readline():
            if line.startswith(b"event: "):
                is_run = line == b"event: run\n"
            elif is_run and line.startswith(b"data: "):
                patch = json.loads(line[6:])
                if "head" in patch:
                    seen.setdefault(patch["head"]["epoch"], time.monotonic())
                if patch.get("base") is None:
                    ready.release()
    finally:
        writer.close()


def telling(run: Path, *, num: int) -> Telling:
    """Tell a listener events that nobody fetches, as training does at a boundary."""
    listener, took = Listener(), []
    for events in long_runs.epochs_of(run, num):
        for event in events:
            began = time.perf_counter()
            listener.tell(event)
            took.append(1e6 * (time.perf_counter() - began))
    took.sort()
    return Telling(p50_us=took[len(took) // 2], p99_us=took[int(0.99 * len(took))], num=len(took))


def render_memory(found: list[Memory]) -> str:
    """A Markdown table."""
    rows = [
        [f"{m.epochs:,}", f"{m.journal_mib:.1f}", f"{m.rss_mib:.0f}", f"{m.page_kib:.0f}"]
        for m in found
    ]
    return table(["epochs", "journal MiB", "server MiB", "told to a page KiB"], rows)


def render_viewers(found: list[Viewers]) -> str:
    """A Markdown table."""
    rows = [
        [
            str(each.viewers),
            f"{each.p50_ms:.0f}",
            f"{each.p95_ms:.0f}",
            f"{each.worst_ms:.0f}",
            str(each.missed),
            f"{each.cpu:.2f}",
            f"{each.rss_mib:.0f}",
        ]
        for each in found
    ]
    return table(["viewers", "p50 ms", "p95 ms", "worst", "missed", "cores", "MiB"], rows)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())
