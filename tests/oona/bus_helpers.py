"""A bus for tests: messages, streams with names of their own, consumers, and hostile places."""

import contextlib
import itertools
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from esper_lightning.leyline import (
    CommandKind,
    EventEnvelope,
    FieldReport,
    Objective,
    Outcome,
    PolicyUpdate,
    Question,
    Raised,
    RunEnded,
    Severity,
    Signer,
    SystemState,
    TelemetryPacket,
    pack,
    seal,
)
from esper_lightning.oona import (
    FIELD,
    KINDS,
    ROUTES,
    Admission,
    Connection,
    Consumer,
    DeadLetter,
    Publisher,
    Received,
    Role,
    Settings,
    connect,
    dead_letters,
)
from esper_lightning.oona.consumer import Handler
from esper_lightning.oona.server import FAILURES

NUMBERS = itertools.count()


def report(number: int) -> FieldReport:
    return FieldReport(
        id=str(number),
        run_id="run",
        command_id=f"command {number}",
        slot="features.2",
        blueprint="bottleneck",
        kind=CommandKind.GERMINATE,
        first_epoch=number,
        last_epoch=number + 3,
        outcome=Outcome.SUCCESS,
        deltas={"val/loss": -0.01},
    )


def ended(number: int) -> RunEnded:
    return RunEnded(run_id="run", epoch=number, step=10 * number, outcome="finished")


def alert(number: int) -> Raised:
    return Raised(run_id="run", name=str(number), severity=Severity.CRITICAL, text="look at it")


def packet(number: int) -> TelemetryPacket:
    return TelemetryPacket(run_id="run", epoch=0, step=number, values={"step_seconds": 0.01})


def policy(version: int) -> PolicyUpdate:
    return PolicyUpdate(name="learned", version=version, digest="a" * 64, reference="learned@1")


def question(epoch: int) -> Question:
    state = SystemState(
        run_id="run",
        epoch=epoch,
        max_epochs=None,
        global_step=0,
        steps_per_epoch=1,
        objective=Objective(name="val/loss"),
        metrics={},
        slots=(),
        host_parameters=1,
        num_parameters=1,
    )
    return Question(run_id="run", attempt="1", epoch=epoch, deadline_s=1.0, state=state)


def sealed(message: Any, signer: Signer, *, role: Role | None = None, **changes: Any) -> bytes:
    """A message as a publisher would send it, but for ``changes`` of its envelope."""
    kind = KINDS[type(message)]
    way = ROUTES[kind]
    envelope = EventEnvelope(
        id=f"{next(NUMBERS):032x}",
        kind=kind,
        source="run",
        priority=way.priority,
        created_at=time.time(),
        ttl_s=way.ttl_s,
        payload=pack(message),
    )
    return seal(replace(envelope, **changes), signer, stream=(role or way.role).value)


class Bus:
    """Streams on a server that others may use, too: names are a test's own.

    Attributes:
        settings: with names that begin with ``prefix``, all in one slot of a cluster.
    """

    def __init__(
        self,
        url: str,
        signer: Signer,
        *,
        prefix: str | None = None,
        lengths: Mapping[Role, int] = {},
    ) -> None:
        self.url = url
        self.signer = signer
        self.prefix = prefix or f"{{oona-test-{secrets.token_hex(6)}}}"
        streams = {role: f"{self.prefix}.{role.value}" for role in Role}
        self.settings = Settings(url=url, streams=streams, lengths=lengths)
        self._closing = contextlib.ExitStack()
        self._publishers: list[Publisher] = []
        self.client = self.connect().client

    def connect(self, timeout_s: float = 0.5) -> Connection:
        """A connection that is closed at the end."""
        return self._closing.enter_context(connect(self.url, timeout_s=timeout_s))

    def add(self, message: Any, *, role: Role | None = None, **changes: Any) -> bytes:
        """Put a message into its stream, sealed; the sealed bytes."""
        data = sealed(message, self.signer, role=role, **changes)
        self.add_bytes(role or ROUTES[KINDS[type(message)]].role, data)
        return data

    def add_reports(self, numbers: range) -> None:
        with self.client.pipeline(transaction=False) as trip:
            for number in numbers:
                trip.xadd(
                    self.settings.streams[Role.NORMAL], {FIELD: sealed(report(number), self.signer)}
                )
            trip.execute()

    def add_bytes(self, role: Role, data: bytes) -> None:
        self.client.xadd(self.settings.streams[role], {FIELD: data})

    def publisher(self, **options: Any) -> Publisher:
        """One that is closed at the end."""
        options = {"source": "run", "url": self.url} | options
        url = options.pop("url")
        publisher = Publisher(lambda: connect(url), self.signer, self.settings, **options)
        self._publishers.append(publisher)
        return publisher

    def consumer(
        self, group: str = "group", handlers: Mapping[str, Handler] | None = None, **options: Any
    ) -> Consumer:
        """A member; without handlers it records what takes effect, see :meth:`effects`."""
        admission = options.pop("admission", None) or Admission(self.signer)
        if handlers is None:
            handlers = dict.fromkeys(KINDS.values(), self.record(group))
        patience = {"retry_s": 0.02, "idle_s": 0.1} | options
        return Consumer(
            self.connect().client,
            self.settings,
            admission,
            group=group,
            handlers=handlers,
            **patience,
        )

    def record(self, group: str = "group") -> Handler:
        """A handler whose effect is a list on the server."""

        def handler(received: Received, transaction: Any) -> None:
            transaction.rpush(f"{self.prefix}.effects.{group}", told(received.message))

        return handler

    def effects(self, group: str = "group") -> list[str]:
        """What took effect in a group, in its order."""
        found = self.client.lrange(f"{self.prefix}.effects.{group}", 0, -1)
        return [each.decode() for each in found]

    def length(self, role: Role = Role.NORMAL) -> int:
        return int(self.client.xlen(self.settings.streams[role]))

    def pending(self, group: str = "group", role: Role = Role.NORMAL) -> int:
        return int(self.client.xpending(self.settings.streams[role], group)["pending"])

    def letters(self) -> list[DeadLetter]:
        """Dead letters of all streams."""
        return [each for role in Role for each in dead_letters(self.client, self.settings, role)]

    def empty(self) -> None:
        """Delete what is here."""
        for key in self.client.scan_iter(match=f"{self.prefix}*", count=1000):
            self.client.delete(key)

    def close(self) -> None:
        """Leave nothing on the server."""
        for publisher in self._publishers:
            publisher.close(0.1)
        if self.client is not None:
            with contextlib.suppress(*FAILURES):  # a test may have killed it
                self.empty()
        self._closing.close()

    def disconnect(self) -> None:
        """Let go of the server, whatever is there."""
        self.client = None
        self._closing.close()


@contextlib.contextmanager
def bus_at(url: str, signer: Signer, **options: Any) -> Iterator[Bus]:
    """A bus that leaves nothing on the server."""
    bus = Bus(url, signer, **options)
    try:
        yield bus
    finally:
        bus.close()


def told(message: Any) -> str:
    """A word for each message of these tests."""
    match message:
        case FieldReport():
            return message.id
        case RunEnded():
            return f"ended {message.epoch}"
        case Raised():
            return f"alert {message.name}"
        case TelemetryPacket():
            return f"packet {message.step}"
        case PolicyUpdate():
            return f"policy {message.version}"
    return type(message).__name__


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for it."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, f"not within {timeout_s:.0f} s"
        time.sleep(0.005)


def drain(*consumers: Consumer) -> None:
    """Poll until nothing is there."""
    while sum(consumer.poll(block_s=0) for consumer in consumers):
        pass


def poll_until(
    condition: Callable[[], object], *consumers: Consumer, timeout_s: float = 20.0
) -> None:
    """Poll by turns until it holds."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, f"not within {timeout_s:.0f} s"
        for consumer in consumers:
            consumer.poll(block_s=0.01)


@contextlib.contextmanager
def running(*consumers: Consumer) -> Iterator[None]:
    """Consumers on threads."""
    stop = threading.Event()
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in consumers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def python(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """A command and an environment in which Python finds what this process finds."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return [sys.executable, *arguments], os.environ | {"PYTHONPATH": path}


LENGTHS = {Role.NORMAL: 300, Role.TELEMETRY: 300}
"""Of the streams of the contract suite."""

NODE = 100
"""A server trims whole nodes of so many entries."""


@contextlib.contextmanager
def held_up(bus: Bus, **options: Any) -> Iterator[tuple[Publisher, threading.Event]]:
    """A publisher whose thread waits for the server until the event is set."""
    begun, goes_on = threading.Event(), threading.Event()

    def slowly() -> Connection:
        begun.set()
        assert goes_on.wait(20)
        return connect(bus.url)

    publisher = Publisher(slowly, bus.signer, bus.settings, source="run", **options)
    publisher.publish(packet(-1))
    assert begun.wait(20)
    try:
        yield publisher, goes_on
    finally:
        goes_on.set()
        publisher.close(10)
