"""The rest of the contract of every server: how full streams may be, and a server that fails."""

import contextlib
from typing import Any

import pytest
from bus_helpers import (
    LENGTHS,
    NODE,
    Bus,
    alert,
    drain,
    packet,
    policy,
    poll_until,
    report,
)
from redis.exceptions import RedisError

from esper_lightning.oona import (
    FIELD,
    Received,
    Role,
    health_of,
    trimming,
)
from esper_lightning.oona.trimming import Pressure, relieve

pytestmark = pytest.mark.integration


@pytest.fixture
def bus(everywhere: Bus) -> Bus:
    return everywhere


# -- how full it is -------------------------------------------------------------------------------


def test_telemetry_is_bounded_and_every_packet_is_accounted_for(bus: Bus) -> None:
    publisher = bus.publisher()
    for number in range(2000):
        publisher.publish(packet(number))
    assert publisher.flush(20)
    assert bus.length(Role.TELEMETRY) <= LENGTHS[Role.TELEMETRY] + NODE
    figures = publisher.figures()
    assert figures.sent + sum(figures.dropped.values()) == figures.put == 2000
    assert figures.lost == 0


def test_kept_messages_are_trimmed_when_every_group_has_them(bus: Bus) -> None:
    for number in range(1000):
        bus.add(report(number))
    fast, slow = bus.consumer("fast"), bus.consumer("slow")
    drain(fast)
    slow.poll(count=250)
    relieve(bus.client, bus.settings, Pressure())
    assert 750 <= bus.length() <= 750 + NODE + 1
    drain(slow)
    assert bus.effects("slow") == bus.effects("fast") == [str(number) for number in range(1000)]
    relieve(bus.client, bus.settings, Pressure())
    assert bus.length() <= NODE + 1


def test_what_is_pending_is_not_trimmed(bus: Bus) -> None:
    for number in range(400):
        bus.add(report(number))
    stream = bus.settings.streams[Role.NORMAL]
    bus.client.xgroup_create(stream, "group", id="0")
    bus.client.xreadgroup("group", "dead", {stream: ">"}, count=150)
    bus.client.xack(stream, "group", *[entry for entry, _ in bus.client.xrange(stream, count=120)])
    drain(bus.consumer("other"))
    relieve(bus.client, bus.settings, Pressure())
    assert 280 <= bus.length() <= 280 + NODE + 1
    consumer = bus.consumer()
    poll_until(lambda: len(bus.effects()) == 280, consumer)
    assert sorted(map(int, bus.effects())) == list(range(120, 400))


def test_without_any_group_the_newest_are_kept(bus: Bus) -> None:
    for number in range(500):
        bus.add(report(number))
    relieve(bus.client, bus.settings, Pressure())
    assert 300 <= bus.length() <= 300 + NODE
    drain(bus.consumer())
    assert bus.effects()[-300:] == [str(number) for number in range(200, 500)]


def test_telemetry_is_held_back_while_its_readers_are_behind(bus: Bus) -> None:
    pressure = Pressure()
    reader = bus.consumer(roles=(Role.TELEMETRY,))
    reader.poll(block_s=0)
    seen = []
    for _ in range(3):
        for number in range(100):
            bus.add(packet(number))
        relieve(bus.client, bus.settings, pressure)
        seen.append((pressure.behind[Role.TELEMETRY], pressure.is_high))
    for _ in range(3):
        reader.poll(block_s=0, count=70)
        relieve(bus.client, bus.settings, pressure)
        seen.append((pressure.behind[Role.TELEMETRY], pressure.is_high))
    assert seen == [
        (100, False),
        (200, False),
        (300, True),
        (230, True),
        (160, True),
        (90, False),
    ]


def test_health_figures(bus: Bus) -> None:
    for number in range(3):
        bus.add(report(number))
    bus.add_bytes(Role.NORMAL, b"noise")
    bus.add(alert(0))
    drain(bus.consumer("done"))
    stream = bus.settings.streams[Role.NORMAL]
    bus.client.xgroup_create(stream, "behind", id="0")
    bus.client.xreadgroup("behind", "one", {stream: ">"}, count=1)
    found = health_of(bus.client, bus.settings)
    streams = {each.role: each for each in found.streams}
    assert list(streams) == [Role.EMERGENCY, Role.NORMAL, Role.POLICY, Role.TELEMETRY]
    assert {role: each.length for role, each in streams.items()} == {
        Role.EMERGENCY: 1,
        Role.NORMAL: 4,
        Role.POLICY: 0,
        Role.TELEMETRY: 0,
    }
    normal = streams[Role.NORMAL]
    assert (normal.name, normal.most, normal.dead_letters) == (stream, 300, 1)
    assert {each.name: (each.members, each.lag, each.pending) for each in normal.groups} == {
        "done": (1, 0, 0),
        "behind": (1, 3, 1),
    }
    assert streams[Role.POLICY].groups == ()
    assert found.version != "unknown" or found.memory is None
    assert found.memory is None or found.memory > 100_000


def test_nothing_but_its_own_is_touched(bus: Bus) -> None:
    """So that a server can be shared: all keys begin with a name of a stream."""
    before = set(bus.client.scan_iter(count=1000))
    publisher = bus.publisher()
    for message in (report(0), alert(0), packet(0), policy(1)):
        publisher.publish(message)
    bus.client.xadd(bus.settings.streams[Role.NORMAL], {FIELD: b"noise"})
    assert publisher.flush(10)
    drain(bus.consumer())
    made = set(bus.client.scan_iter(count=1000)) - before
    names = tuple(name.encode() for name in (*bus.settings.streams.values(), bus.prefix))
    assert made
    assert all(key.startswith(names) for key in made)


def test_a_group_that_nobody_reads_any_more_holds_no_telemetry_back(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.add(packet(0))
    bus.consumer(roles=(Role.TELEMETRY,)).poll(block_s=0)
    for number in range(300):
        bus.add(packet(number))
    pressure = Pressure()
    relieve(bus.client, bus.settings, pressure)
    assert pressure.is_high
    monkeypatch.setattr(trimming, "SILENT_MS", -1)
    relieve(bus.client, bus.settings, pressure)
    assert not pressure.is_high


def test_what_everybody_has_makes_room_on_a_server_that_is_full(bus: Bus) -> None:
    bus.add_reports(range(250))
    drain(bus.consumer())
    relieve(bus.client, bus.settings, Pressure())
    assert bus.length() == 250, "it is not too long"
    relieve(bus.client, bus.settings, Pressure(), is_full=True)
    assert bus.length() <= NODE + 1


# -- a server that fails --------------------------------------------------------------------------


def test_a_connection_that_breaks_within_the_transaction_costs_nothing(bus: Bus) -> None:
    """redis-py tells it as if another member had been faster."""
    record, broken = bus.record(), []

    def handler(received: Received, transaction: Any) -> None:
        record(received, transaction)
        if not broken:
            broken.append(True)
            transaction.connection.disconnect()

    bus.add(report(0))
    consumer = bus.consumer(handlers={"report": handler})
    with contextlib.suppress(RedisError):
        consumer.poll(block_s=0)
    poll_until(bus.effects, consumer)
    drain(consumer)
    assert bus.effects() == ["0"]
    assert bus.pending() == 0
    assert bus.letters() == []


def test_a_server_that_fails_again_and_again_buries_nothing(bus: Bus) -> None:
    """What failed was not the handler."""
    record, failures = bus.record(), []

    def handler(received: Received, transaction: Any) -> None:
        record(received, transaction)
        if len(failures) < 9:
            failures.append(True)
            raise RedisError("the server is full")

    bus.add(report(0))
    consumer = bus.consumer(handlers={"report": handler}, max_deliveries=2)
    for _ in range(1000):
        with contextlib.suppress(RedisError):
            consumer.poll(block_s=0.001)
        if bus.effects():
            break
    assert len(failures) == 9
    assert bus.effects() == ["0"]
    assert bus.letters() == []
