"""Policies from the bus and the library: what is hostile, broken or damaged never decides."""

import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bus_helpers import Bus, bus_at, sealed
from scripted_policies import NAME, Script, Scripted, at, data_of, make, run, saved, told
from servers import KINDS, Server, started

from esper_lightning.leyline import (
    InvalidArgument,
    KeyRequired,
    PolicyChanged,
    PolicyUpdate,
    Signer,
    unseal,
)
from esper_lightning.oona import FIELD, Refusal, Role
from esper_lightning.tamiyo.reload import (
    BusPolicies,
    PolicyRefused,
    Reloading,
    from_library,
    publish_policy,
)
from esper_lightning.tamiyo.reload.bus import PAGE, PAGES
from esper_lightning.tamiyo.reload.reloading import MAX_LOOKS, MAX_TOLD
from esper_lightning.urza import BadSignature, Damaged, Library

KEY = b"the key of these tests"
STREAM = "policies-of-these-tests"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "ESPER_LEYLINE_PREVIOUS_SECRET"):
        monkeypatch.delenv(name, raising=False)
    for role in Role:
        monkeypatch.setenv(f"OONA_{role.name}_STREAM", f"{STREAM}.{role.value}")
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", KEY.decode())


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with started(request.param) as running:
        yield running


@pytest.fixture
def bus(server: Server) -> Iterator[Bus]:
    with bus_at(server.url, Signer(KEY), prefix=STREAM) as opened:
        yield opened


@pytest.fixture
def memory() -> Iterator[Bus]:
    with started("memory") as running, bus_at(running.url, Signer(KEY), prefix=STREAM) as opened:
        yield opened


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "library") as opened:
        yield opened


def listening(bus: Bus, library: Library) -> Reloading:
    return Reloading(
        Scripted(Script(mark="own")),
        source=BusPolicies(url=bus.url),
        load=from_library(library, make),
    )


def publish(bus: Bus, library: Library, version: int, script: Script, **changes: bytes) -> Any:
    return publish_policy(
        library,
        bus.add,
        changes.get("data", data_of(script)),
        name=NAME,
        version=version,
        reason="better on held-out tasks",
    )


def alerts(bus: Bus) -> int:
    return bus.length(Role.EMERGENCY)


def test_what_is_published_decides_at_the_next_boundary(bus: Bus, library: Library) -> None:
    policy = listening(bus, library)
    assert run(policy, range(3)) == ["own"] * 3
    first = publish(bus, library, 1, Script(mark="first"))
    assert first.reference == "scripted@1"
    assert run(policy, range(3, 5)) == ["first"] * 2
    publish(bus, library, 5, Script(mark="fifth"))
    publish(bus, library, 6, Script(mark="sixth"))
    assert run(policy, range(5, 7)) == ["sixth"] * 2
    changes = policy.changes()
    assert told(changes) == [(3, "installed", 1), (5, "installed", 6)]
    assert changes[0].reason == "better on held-out tasks"
    policy.close()
    publish(bus, library, 7, Script(mark="seventh"))
    assert run(policy, range(7, 8)) == ["seventh"]
    policy.close()


def test_a_publisher_of_the_bus_publishes(memory: Bus, library: Library) -> None:
    publisher = memory.publisher()
    publish_policy(
        library, publisher.publish, data_of(Script(mark="new")), name=NAME, version=1, reason="new"
    )
    assert publisher.flush(10)
    assert run(listening(memory, library), range(1)) == ["new"]


def test_hostile_and_broken_updates_never_decide_and_are_recorded_once(
    bus: Bus, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    policy = listening(bus, library)
    old = publish(bus, library, 10, Script(mark="tenth"))
    assert run(policy, range(5)) == ["tenth"] * 5
    (entry,) = [fields[FIELD] for _, fields in bus.client.xrange(f"{STREAM}.policy")]
    policy.changes()
    recorded: list[PolicyChanged] = []
    epoch = 4

    def then(version: int, *why: str) -> None:
        nonlocal epoch
        epoch += 1
        assert run(policy, range(epoch, epoch + 1)) == ["tenth"]
        changes = policy.changes()
        assert told(changes) == [(epoch, "refused", version)]
        assert all(word in changes[0].reason for word in why), changes[0].reason
        assert (changes[0].before, changes[0].after) == (10, 10)
        recorded.extend(changes)

    good = PolicyUpdate(
        name=NAME, version=11, digest=old.digest, reference=old.reference, reason="take me"
    )
    forged = sealed(good, Signer(b"somebody else's key, long enough"))
    bus.add_bytes(Role.POLICY, forged)
    then(0, "forged")
    bus.add_bytes(Role.POLICY, sealed(good, bus.signer)[:-3])
    then(0, "forged")
    bus.add(old)  # so that those in a row are not three
    bus.client.xadd(f"{STREAM}.policy", {b"other": b"field"})
    then(0, "forged", "no sealed message")
    bus.add_bytes(Role.POLICY, entry)
    then(0, "replayed")
    bus.add(good, created_at=time.time() - 100_000)
    then(0, "stale")
    bus.add(good, payload=b"\x93\x01\x02")
    then(0, "malformed")
    older = publish(bus, library, 9, Script(mark="ninth"))
    then(9, "10 was here already")
    bus.add(good, role=Role.NORMAL)  # not on the stream of policies
    epoch += 1
    assert run(policy, range(epoch, epoch + 1)) == ["tenth"]
    assert policy.changes() == []

    bus.add(good)
    then(11, "was stored as version 10 of the policy and the update says 11")
    missing = PolicyUpdate(name=NAME, version=12, digest="a" * 64, reference=f"{NAME}@99")
    bus.add(missing)
    then(12, "is not in the library")
    wrong = publish_elsewhere(library, 13, Script(mark="other"), digest="b" * 64)
    bus.add(wrong)
    then(13, "it is not what was published")
    bus.add(PolicyUpdate(name=NAME, version=14, digest="a" * 64, reference="../../etc/passwd"))
    then(14, "names no version")
    damaged = publish_elsewhere(library, 15, Script(mark="damaged"))
    content = library.root / "content" / damaged.digest[:2] / damaged.digest
    content.write_bytes(content.read_bytes()[:-1] + b"?")
    bus.add(damaged)
    then(15, "Damaged")
    publish(bus, library, 16, Script(mark="?"), data=random.Random(0).randbytes(1000))
    then(16, "DecodeError: this is no script")
    publish(bus, library, 17, Script(mark="?", does="what nobody knows"))
    then(17, "InvalidArgument: nobody knows")
    for version, conduct in enumerate(["raises", "an illegal kind", "value NaN"], start=18):
        publish(bus, library, version, Script(mark="bad", does=conduct))
        then(version, "on trial, at epoch 0")
    publish(bus, library, 21, Script(mark="bad", does="value NaN", since=epoch + 2))
    assert run(policy, range(epoch + 1, epoch + 2)) == ["bad"]
    assert told(policy.changes()) == [(epoch + 1, "installed", 21)]
    epoch += 1
    assert run(policy, range(epoch + 1, epoch + 3)) == ["tenth"] * 2
    assert told(policy.changes()) == [(epoch + 1, "rolled_back", 21)]
    epoch += 2
    bus.add(older)  # in a new envelope
    bus.add_bytes(Role.POLICY, entry)
    assert run(policy, range(epoch + 1, epoch + 3)) == ["tenth"] * 2
    (change,) = policy.changes()
    assert "replayed" in change.reason
    assert len(recorded) == 17
    assert alerts(bus) == 3
    policy.close()


def publish_elsewhere(
    library: Library, version: int, script: Script, *, digest: str = ""
) -> PolicyUpdate:
    """Store a policy, and tell nobody; the update, with another digest if one is given."""
    update = publish_policy(
        library, lambda _: None, data_of(script), name=NAME, version=version, reason="new"
    )
    changed = {"digest": digest} if digest else {}
    return PolicyUpdate(
        **{name: getattr(update, name) for name in update.__struct_fields__} | changed
    )


def test_who_was_not_signed_by_this_installation_is_not_loaded(
    memory: Bus, library: Library
) -> None:
    with Library(library.root, signer=Signer(b"somebody else's key, long enough")) as other:
        update = publish_elsewhere(other, 1, Script(mark="other"))
    with pytest.raises(BadSignature):
        from_library(library, make)(update)


def test_what_is_loaded_is_what_was_published(library: Library) -> None:
    update = publish_elsewhere(library, 4, Script(mark="fourth"))
    load = from_library(library, make)
    assert load(update) is not load(update)
    assert load(update).script == Script(mark="fourth")  # type: ignore[attr-defined]
    library.put("policy", NAME, {"weights": b"1"}, about={"version": 5})
    for reference, version, why in [
        (f"{NAME}@1", 5, "stored as version 4"),
        (f"{NAME}@2", 5, "has no part 'policy'"),
        (f"{NAME}@3", 5, "is not in the library"),
        ("other@1", 4, "names no version"),
        (NAME, 4, "names no version"),
        (f"{NAME}@0", 4, "names no version"),
        (f"{NAME}@{'9' * 5000}", 4, "names no version"),
    ]:
        wrong = PolicyUpdate(name=NAME, version=version, digest=update.digest, reference=reference)
        with pytest.raises(PolicyRefused, match=why):
            load(wrong)
    artifact = library.get("policy", NAME, version=1)
    assert artifact is not None
    (library.root / "content" / update.digest[:2] / update.digest).unlink()
    with pytest.raises(Damaged):
        load(update)


def test_what_cannot_be_stored_is_not_published(library: Library) -> None:
    sent: list[PolicyUpdate] = []
    for name, version in (("", 1), ("a\nb", 1), (NAME, 0)):
        with pytest.raises(InvalidArgument):
            publish_policy(library, sent.append, b"1", name=name, version=version, reason="new")
    assert sent == []


def test_a_flood_of_ten_thousand_is_looked_at_in_turn(memory: Bus, library: Library) -> None:
    """Authentic ones, of which each would do harm; a boundary looks at a few."""
    policy = listening(memory, library)
    publish(memory, library, 1, Script(mark="good"))
    assert run(policy, range(2)) == ["good"] * 2
    policy.changes()
    bad = publish_elsewhere(library, 2, Script(mark="bad", does="raises"))
    with memory.client.pipeline(transaction=False) as trip:
        for version in range(2, 10_002):
            update = PolicyUpdate(
                name=NAME, version=version, digest=bad.digest, reference=bad.reference
            )
            trip.xadd(f"{STREAM}.policy", {FIELD: sealed(update, memory.signer)})
        trip.execute()
    assert run(policy, range(2, 14)) == ["good"] * 12
    changes = policy.changes()
    pages = 10_000 // (PAGE * PAGES)
    assert told(changes) == [
        (2 + page, "refused", 1001 + 1000 * page - look)
        for page in range(pages)
        for look in range(MAX_LOOKS)
    ]


def test_a_flood_of_forged_ones_leaves_one_line_and_one_alert_for_each_boundary(
    memory: Bus, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    policy = listening(memory, library)
    other = Signer(b"somebody else's key, long enough")
    update = PolicyUpdate(name=NAME, version=2, digest="a" * 64, reference=f"{NAME}@1")
    with memory.client.pipeline(transaction=False) as trip:
        for _ in range(3 * PAGE * PAGES):
            trip.xadd(f"{STREAM}.policy", {FIELD: sealed(update, other)})
        trip.execute()
    assert run(policy, range(6)) == ["own"] * 6
    assert told(policy.changes()) == [(epoch, "refused", 0) for epoch in range(3)]
    assert alerts(memory) == 3
    (_, fields), *_ = memory.client.xrange(f"{STREAM}.emergency")
    assert b"the first of 1000" in unseal(fields[FIELD], memory.signer, stream="emergency").payload


def test_after_forged_ones_in_a_row_an_authentic_one_is_kept_until_the_bus_is_trusted(
    memory: Bus, library: Library
) -> None:
    policy = listening(memory, library)
    run(policy, range(1))
    assert policy.distrust() == ""
    for _ in range(3):
        memory.add_bytes(Role.POLICY, b"forged")
    publish(memory, library, 100, Script(mark="100"))
    assert run(policy, range(1, 4)) == ["own"] * 3
    assert told(policy.changes()) == [(1, "refused", 0)]
    assert policy.distrust() == "somebody forges messages on the bus's stream of policies"
    checkpoint = saved(policy)
    for version in range(2, 21):
        publish(memory, library, version, Script(mark=str(version)))
    assert run(policy, range(4, 6)) == ["100"] * 2
    assert policy.distrust() == ""
    # What was kept back is read again by who resumes.
    resumed = listening(memory, library)
    resumed.load_state_dict(checkpoint)
    assert run(resumed, range(4, 6)) == ["100"] * 2


def test_a_resumed_run_reads_on(memory: Bus, library: Library) -> None:
    policy = listening(memory, library)
    for version in (1, 2, 3):
        publish(memory, library, version, Script(mark=str(version)))
        run(policy, range(version, version + 1))
    memory.add_bytes(Role.POLICY, b"forged")
    run(policy, range(4, 5))
    checkpoint = saved(policy)
    resumed = listening(memory, library)
    resumed.load_state_dict(checkpoint)
    assert run(resumed, range(5, 7)) == ["3"] * 2
    assert resumed.changes() == []
    publish(memory, library, 4, Script(mark="4"))
    assert run(resumed, range(7, 9)) == ["4"] * 2
    from_the_beginning = listening(memory, library)
    from_the_beginning.load_state_dict(checkpoint | {"position": "nowhere"})
    assert run(from_the_beginning, range(5, 7)) == ["4"] * 2


def test_a_bus_that_cannot_be_reached_has_no_policies_and_is_named_once(
    library: Library, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = BusPolicies(url=f"unix://{tmp_path}/nothing")
    began = time.monotonic()
    assert [source.poll() for _ in range(1000)] == [[]] * 1000
    assert time.monotonic() - began < 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no new policies can be heard of" in caplog.text
    assert source.refusals() == []
    assert source.position() == ""
    source.close()


def test_a_server_that_is_killed_is_found_again(
    server: Server,
    bus: Bus,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("esper_lightning.tamiyo.reload.bus._RETRY_S", 0.01)
    monkeypatch.setattr("esper_lightning.tamiyo.reload.bus._MOST_S", 0.05)
    policy = listening(bus, library)
    publish(bus, library, 1, Script(mark="first"))
    assert run(policy, range(2)) == ["first"] * 2
    epoch = 2
    for outage in (1, 2):
        server.kill()
        for _ in range(2):
            epoch += 1
            policy.decide(at(epoch))
        server.restart()
        with bus_at(server.url, Signer(KEY), prefix=STREAM) as opened:
            publish(opened, library, outage + 1, Script(mark=str(outage)))
            ends = time.monotonic() + 20
            while policy.version != outage + 1:
                assert time.monotonic() < ends
                epoch += 1
                policy.decide(at(epoch))
                time.sleep(0.01)
        assert told(policy.changes())[-1] == (epoch, "installed", outage + 1)
        assert caplog.text.count("no new policies can be heard of") == outage
    policy.close()


def test_a_server_that_hangs_holds_up_one_boundary_and_not_the_next(library: Library) -> None:
    with started("redis") as server, bus_at(server.url, Signer(KEY), prefix=STREAM) as bus:
        policy = listening(bus, library)
        publish(bus, library, 1, Script(mark="first"))
        run(policy, range(1))
        server.pause()
        began = time.monotonic()
        assert run(policy, range(1, 50)) == ["first"] * 49
        assert time.monotonic() - began < 10
        server.resume()
        policy.close()


def test_a_shared_bus_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPER_LEYLINE_SECRET")
    with started("redis") as server, pytest.raises(KeyRequired):
        BusPolicies(url=server.url).poll()


def test_refused_messages_are_counted(memory: Bus) -> None:
    source = BusPolicies(url=memory.url)
    memory.add_bytes(Role.POLICY, b"forged")
    data = memory.add(PolicyUpdate(name=NAME, version=1, digest="a" * 64, reference="x@1"))
    for _ in range(3):
        memory.add_bytes(Role.POLICY, data)
    assert [each.version for each in source.poll()] == [1]
    assert source.refused == {Refusal.FORGED: 1, Refusal.REPLAYED: 3}
    forged, replayed = source.refusals()
    assert forged.startswith("forged")
    assert replayed.endswith("and 2 more messages, replayed")
    assert source.refusals() == []
    assert len(Refusal) <= MAX_TOLD
