"""What publishing costs who publishes, how soon a message is there, and how many a second can be.

Puts into a ``queue.SimpleQueue`` take turns with publishing, so that a machine that slows down
favours nobody: into one that nobody reads, and into one whose reader must be woken, as the thread
of a publisher must. Between two of them the thread multiplies matrices, as training does: in a
burst nothing would be measured but the queue, and how two threads share one interpreter.
"""

import contextlib
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import torch

from esper_lightning.evidence.bus.contracts import packet, report
from esper_lightning.evidence.bus.servers import KEY, Server
from esper_lightning.evidence.report import table
from esper_lightning.leyline import Signer, pack
from esper_lightning.oona import (
    OUTBOX_NAME,
    Admission,
    Consumer,
    Publisher,
    Received,
    Role,
    Settings,
    connect,
)

UP, HUNG, DEAD = "up", "hung", "dead"

KEPT_EVERY = 10
"""Of so many messages one is a report, which is kept; the others are telemetry."""

_WARM_UP = 20
_FLUSH_S = 120.0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the calling thread pays for a message, in microseconds.

    Attributes:
        server: which.
        state: of it.
        p50_us: median.
        p99_us: of a hundred, one is longer.
        put_p50_us: the same of a put into a queue that nobody reads.
        put_p99_us: likewise.
        wake_p50_us: the same of a put into a queue for which a thread waits.
        wake_p99_us: likewise.
        num: how many were measured.
        lost: reports that the server does not have after it has recovered.
    """

    server: str
    state: str
    p50_us: float
    p99_us: float
    put_p50_us: float
    put_p99_us: float
    wake_p50_us: float
    wake_p99_us: float
    num: int
    lost: int


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """From publishing to the handler in another process, in milliseconds.

    Attributes:
        server: which.
        message: what was sent; a report is written to disk first.
        p50_ms: median.
        p95_ms: of twenty, one is longer.
        num: how many were measured.
    """

    server: str
    message: str
    p50_ms: float
    p95_ms: float
    num: int


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of a second.

    Attributes:
        server: which.
        what: was done.
        per_s: messages by seconds, median of the repetitions.
        best_per_s: of the fastest one.
        num: messages of a repetition.
    """

    server: str
    what: str
    per_s: float
    best_per_s: float
    num: int


# -- what publishing costs ------------------------------------------------------------------------


@contextlib.contextmanager
def _in_state(server: Server, state: str) -> Iterator[None]:
    if state == HUNG:
        server.pause()
    elif state == DEAD:
        server.kill()
    try:
        yield
    finally:
        if state == HUNG:
            server.resume()
        elif state == DEAD:
            server.restart()


def publish_cost(server: Server, state: str, *, num: int) -> Cost:
    """Publish ``num`` messages to a server that is up, hangs or is dead."""
    server.empty()
    with (
        TemporaryDirectory() as folder,
        closing(server.publisher(outbox=Path(folder) / OUTBOX_NAME)) as publisher,
    ):
        publisher.publish(report())
        assert publisher.flush(_FLUSH_S)
        with _in_state(server, state):
            seconds = _publish_paced(publisher, num)
        assert publisher.flush(_FLUSH_S)
    kept = Counter(pack(report(number)) for number in range(0, num, KEPT_EVERY))
    (p50, put_p50, wake_p50), (p99, put_p99, wake_p99) = np.percentile(
        1e6 * np.asarray(seconds), [50, 99], axis=1
    )
    return Cost(
        server=server.name,
        state=state,
        p50_us=float(p50),
        p99_us=float(p99),
        put_p50_us=float(put_p50),
        put_p99_us=float(put_p99),
        wake_p50_us=float(wake_p50),
        wake_p99_us=float(wake_p99),
        num=num,
        lost=(kept - server.kept()[0]).total(),
    )


def _publish_paced(publisher: Publisher, num: int) -> list[list[float]]:
    """Seconds of each publishing, each put that wakes nobody, and each that wakes a thread."""
    unread: SimpleQueue[Any] = SimpleQueue()
    awaited: SimpleQueue[Any] = SimpleQueue()
    reader = threading.Thread(target=lambda: all(iter(awaited.get, None)), daemon=True)
    reader.start()
    torch.set_num_threads(1)
    matrix = torch.ones(96, 96)
    acts: list[Callable[[Any], Any]] = [publisher.publish, unread.put, awaited.put]
    seconds: list[list[float]] = [[], [], []]
    for number in range(num):
        message = packet(number) if number % KEPT_EVERY else report(number)
        for act, taken in zip(acts, seconds, strict=True):
            torch.mm(matrix, matrix)
            began = time.perf_counter()
            act(message)
            taken.append(time.perf_counter() - began)
    awaited.put(None)
    reader.join()
    return seconds


# -- how soon a message is there ------------------------------------------------------------------


def latency(server: Server, kind: str, *, num: int) -> Latency:
    """Publish ``num`` messages, one at a time, to a consumer in another process."""
    server.empty()
    make: Callable[[int], Any] = report if kind == "report" else packet
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    hearing, telling = context.Pipe(duplex=False)
    process = context.Process(target=_tell_ages, args=(server.url, KEY, kind, telling))
    process.start()
    telling.close()
    hearing.recv()
    ages: list[float] = []
    try:
        with (
            TemporaryDirectory() as folder,
            closing(server.publisher(outbox=Path(folder) / OUTBOX_NAME)) as publisher,
        ):
            for number in range(num + _WARM_UP):
                publisher.publish(make(number))
                if not hearing.poll(_FLUSH_S):
                    raise TimeoutError(f"no {kind} came within {_FLUSH_S:.0f} s")
                ages.append(hearing.recv())
                time.sleep(0.002)
    finally:
        process.kill()
        process.join()
        hearing.close()
    p50, p95 = np.percentile(1e3 * np.asarray(ages[_WARM_UP:]), [50, 95])
    return Latency(server=server.name, message=kind, p50_ms=float(p50), p95_ms=float(p95), num=num)


def _tell_ages(url: str, key: bytes, kind: str, telling: Connection) -> None:
    """In another process: tell of each message how old it is when its handler is called."""

    def handler(received: Received, _: Any) -> None:
        telling.send(time.time() - received.envelope.created_at)

    with connect(url) as connection:
        consumer = Consumer(
            connection.client,
            Settings.from_environment(url),
            Admission(Signer(key)),
            group="latency",
            handlers={kind: handler},
            roles=(Role.EMERGENCY, Role.NORMAL, Role.TELEMETRY),
        )
        consumer.poll(block_s=0)  # makes the groups
        telling.send(None)
        while True:
            consumer.poll()


# -- how many a second ----------------------------------------------------------------------------


def throughput(server: Server, *, num: int, repeats: int) -> list[Throughput]:
    """Publish in bulk, in memory and through an outbox; then consume what is there."""
    telemetry, reports, consumed = [], [], []
    packets = [packet(number) for number in range(num)]
    kept = [report(number) for number in range(num)]
    for _ in range(repeats):
        server.empty()
        telemetry.append(num / _bulk(server, packets, outbox=False))
        reports.append(num / _bulk(server, kept, outbox=True))
        consumed.append(num / _consume(server, num))
    ways = {
        "telemetry, published and acknowledged": telemetry,
        "reports, through the outbox, published and acknowledged": reports,
        "reports, consumed by one member": consumed,
    }
    return [
        Throughput(
            server=server.name,
            what=what,
            per_s=float(np.median(found)),
            best_per_s=max(found),
            num=num,
        )
        for what, found in ways.items()
    ]


def _bulk(server: Server, messages: list[Any], *, outbox: bool) -> float:
    """Seconds from the first publishing to the last acknowledgement."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / OUTBOX_NAME if outbox else None
        with closing(server.publisher(outbox=path, capacity=2 * len(messages))) as publisher:
            assert publisher.flush(_FLUSH_S)
            began = time.perf_counter()
            for message in messages:
                publisher.publish(message)
            assert publisher.flush(_FLUSH_S)
            seconds = time.perf_counter() - began
        assert publisher.figures().sent == len(messages), publisher.figures()
    return seconds


def _consume(server: Server, num: int) -> float:
    """Seconds in which one member takes in ``num`` reports that are there."""
    with server.connect() as connection:
        consumer = Consumer(
            connection.client,
            server.settings,
            Admission(Signer(KEY)),
            group="throughput",
            handlers={"report": lambda _, __: None},
        )
        began = time.perf_counter()
        while consumer.poll(block_s=0):
            pass
        seconds = time.perf_counter() - began
        assert consumer.counts["handled"] == num, consumer.counts
    return seconds


# -- tables ---------------------------------------------------------------------------------------


def render_costs(found: list[Cost]) -> str:
    """A Markdown table."""
    header = ["server", "it is", "publishing", "a put", "a put that wakes", "num", "lost"]
    rows = []
    for each in found:
        pairs = (
            (each.p50_us, each.p99_us),
            (each.put_p50_us, each.put_p99_us),
            (each.wake_p50_us, each.wake_p99_us),
        )
        cells = [each.server, each.state, *(f"{p50:.1f} / {p99:.1f}" for p50, p99 in pairs)]
        rows.append([*cells, str(each.num), str(each.lost)])
    return f"{table(header, rows)}\n\nMicroseconds, p50 / p99."


def render_latencies(found: list[Latency]) -> str:
    """A Markdown table."""
    rows = [
        [each.server, each.message, f"{each.p50_ms:.2f}", f"{each.p95_ms:.2f}", str(each.num)]
        for each in found
    ]
    return table(["server", "message", "p50 ms", "p95 ms", "num"], rows)


def render_throughputs(found: list[Throughput]) -> str:
    """A Markdown table."""
    rows = [
        [each.server, each.what, f"{each.per_s:,.0f}", f"{each.best_per_s:,.0f}", str(each.num)]
        for each in found
    ]
    return table(["server", "what", "messages/s", "best", "num"], rows)
