"""Runs are heard over the bus: of this process, over Redis, and again after the bus was away."""

import secrets
import time

import pytest
from served import TOKEN
from servers import KINDS, started
from starlette.testclient import TestClient
from synthetic_run import RUN_ID, synthetic_run

from esper_lightning.leyline import InvalidArgument, KeyRequired, Raised, Severity, Signer
from esper_lightning.nissa.server import Listener, create_app
from esper_lightning.nissa.server.bus import BusReader
from esper_lightning.oona import FIELD, Role, Settings, connect, envelope_of, sealed

EVENTS = synthetic_run(("features.0", "features.1"), 12, seed=3)


@pytest.fixture(params=KINDS)
def bus(request, monkeypatch):
    """A server of each kind, with a key."""
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", secrets.token_hex(16))
    with started(request.param) as server:
        yield server


def publish(bus, events, *, times=1, signer=None):
    """As a run's publisher does; ``times`` as after answers that were lost."""
    settings = Settings(url=bus.url)
    with connect(bus.url, timeout_s=5.0) as connection:
        signer = signer or connection.signer()
        for event in events:
            data = sealed(envelope_of(event, source="run"), signer)
            role = Role.EMERGENCY if isinstance(event, Raised) else Role.NORMAL
            for _ in range(times):
                connection.add(settings.streams[role], {FIELD: data})


def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def heard(listener):
    return tuple(e for card in listener.cards() for e in listener.read(card.id).events)


def test_a_run_on_the_bus_is_shown_from_its_beginning(bus, tmp_path):
    publish(bus, EVENTS[:20])
    app = create_app(runs=[], bus=bus.url, folder=tmp_path / "kept", token=TOKEN, every_s=0.02)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        until(lambda: client.get("/api/runs").json())
        publish(bus, EVENTS[20:])
        until(lambda: client.get("/api/runs").json()[0]["outcome"] == "finished")
        (entry,) = client.get("/api/runs").json()
        run = client.get(f"/api/runs/{entry['id']}").json()
        assert (entry["source"], run["head"]["run_id"], run["head"]["epoch"]) == ("bus", RUN_ID, 12)


def test_what_was_sent_twice_counts_once_and_what_is_forged_not_at_all(bus):
    listener = Listener("bus")
    reader = BusReader(listener, bus.url)
    publish(bus, EVENTS[:20], times=2)
    publish(bus, EVENTS[20:], signer=Signer(b"another key than the one of it"))
    reader.start()
    until(lambda: reader.refused == len(EVENTS))
    reader.close()
    assert heard(listener) == tuple(EVENTS[:20])


def test_two_readers_hear_the_same_and_take_nothing_from_each_other(bus):
    listeners = [Listener("bus"), Listener("bus")]
    readers = [BusReader(listener, bus.url) for listener in listeners]
    publish(bus, EVENTS)
    for reader in readers:
        reader.start()
    for listener in listeners:
        until(lambda listener=listener: any(not card.live for card in listener.cards()))
    for reader in readers:
        reader.close()
    assert [heard(listener) for listener in listeners] == [tuple(EVENTS)] * 2


def test_a_bus_that_is_away_is_waited_for(monkeypatch):
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", secrets.token_hex(16))
    with started("redis") as server:
        server.kill()
        listener = Listener("bus")
        reader = BusReader(listener, server.url)  # not there yet
        reader.start()
        server.restart()
        publish(server, EVENTS[:10])
        until(listener.cards)
        server.kill()
        server.restart()
        publish(server, EVENTS[10:])
        until(lambda: not listener.cards()[0].live)
        reader.close()
        assert heard(listener) == tuple(EVENTS)


def test_an_alert_that_another_program_raises_is_shown(bus, tmp_path):
    app = create_app(runs=[], bus=bus.url, folder=tmp_path / "kept", token=TOKEN, every_s=0.02)
    raised = Raised(
        run_id="controller", name="oona_forged_message", severity=Severity.CRITICAL, text="forged"
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        publish(bus, [raised])
        until(lambda: 'run="controller"' in client.get("/metrics").text)
        told = 'oona_rejected_signatures_total{rank="0",run="controller"} 1.0'
        assert told in client.get("/metrics").text


def test_an_alert_from_before_the_start_is_not_raised_again(bus, tmp_path):
    raised = Raised(
        run_id="controller", name="oona_forged_message", severity=Severity.CRITICAL, text="forged"
    )
    publish(bus, [raised, *EVENTS[:20]])
    app = create_app(runs=[], bus=bus.url, folder=tmp_path / "kept", token=TOKEN, every_s=0.02)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        until(lambda: client.get("/api/runs").json())  # read after what is urgent
        assert 'run="controller"' not in client.get("/metrics").text


def test_an_address_that_is_none_and_a_shared_bus_without_a_key_are_refused(monkeypatch, tmp_path):
    with pytest.raises(InvalidArgument, match="the bus's url"):
        create_app(runs=[], bus="nowhere://x", folder=tmp_path, token=TOKEN)
    monkeypatch.delenv("ESPER_LEYLINE_SECRET", raising=False)
    with pytest.raises(KeyRequired, match="ESPER_LEYLINE_SECRET"):
        BusReader(Listener(), "redis://127.0.0.1:1/0")
