"""One contract for every server: what publishers and consumers promise each other.

With ``REDIS_URL`` set it is held against that server as well. It may be a shared one: all names are
a test's own, and nothing is left there.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from bus_helpers import (
    Bus,
    alert,
    drain,
    ended,
    policy,
    poll_until,
    question,
    report,
    running,
    sealed,
    until,
)

from esper_lightning.leyline import Signer
from esper_lightning.oona import (
    Admission,
    Received,
    Refusal,
    Role,
    replay,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def bus(everywhere: Bus) -> Bus:
    return everywhere


# -- delivery -------------------------------------------------------------------------------------


def test_a_message_takes_effect_once_in_each_group(bus: Bus) -> None:
    publisher = bus.publisher()
    for number in range(20):
        publisher.publish(report(number))
    assert publisher.flush(10)
    groups = [bus.consumer("one"), bus.consumer("one", name="other"), bus.consumer("two")]
    drain(*groups)
    drain(*groups)
    expected = [str(number) for number in range(20)]
    assert sorted(bus.effects("one"), key=int) == expected
    assert bus.effects("two") == expected
    assert groups[0].counts["handled"] + groups[1].counts["handled"] == 20
    assert bus.letters() == []
    assert bus.pending("one") == bus.pending("two") == 0
    assert publisher.figures().sent == 20


def test_kept_messages_keep_their_order(bus: Bus) -> None:
    publisher, consumer = bus.publisher(), bus.consumer()
    drain(consumer)  # a group that is there is waited for, far beyond the stream's length
    for number in range(1200):  # more than two batches
        publisher.publish(report(number))
    assert publisher.flush(20)
    drain(consumer)
    assert bus.effects() == [str(number) for number in range(1200)]


def test_what_is_urgent_comes_first(bus: Bus) -> None:
    for number in range(3):
        bus.add(report(number))
    bus.add(alert(0))
    consumer = bus.consumer()
    consumer.poll()
    assert bus.effects() == ["alert 0"]
    bus.add(alert(1))
    drain(consumer)
    assert bus.effects() == ["alert 0", "alert 1", "0", "1", "2"]


def test_a_waiting_consumer_is_woken(bus: Bus) -> None:
    with running(bus.consumer()):
        for message, effect in ((report(1), "1"), (alert(2), "alert 2")):
            bus.add(message)
            until(lambda effect=effect: effect in bus.effects())  # type: ignore[misc]


def test_a_group_that_comes_later_gets_what_is_there(bus: Bus) -> None:
    for number in range(5):
        bus.add(report(number))
    drain(bus.consumer("early"))
    drain(bus.consumer("late"))
    assert bus.effects("late") == bus.effects("early") == list("01234")


def test_what_nobody_handles_is_acknowledged(bus: Bus) -> None:
    bus.add(ended(0))
    consumer = bus.consumer(handlers={"report": bus.record()})
    drain(consumer)
    assert consumer.counts == Counter(unhandled=1)
    assert bus.pending() == 0
    assert bus.letters() == []


def test_it_goes_on_after_the_server_was_emptied(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    publisher, consumer = bus.publisher(), bus.consumer()
    with caplog.at_level(logging.WARNING), running(consumer):
        for number in range(4):
            publisher.publish(report(number))
            assert publisher.flush(10)
            until(lambda: len(bus.effects()) == 1)
            assert bus.effects() == [str(number)]
            bus.empty()
    assert caplog.text == ""


def test_polling_says_nothing_of_an_emptied_server(bus: Bus) -> None:
    consumer = bus.consumer()
    bus.add(report(0))
    drain(consumer)
    bus.empty()
    assert consumer.poll(block_s=0) == 0
    bus.add(report(1))
    drain(consumer)
    assert bus.effects() == ["1"]


# -- failures -------------------------------------------------------------------------------------


def test_a_handler_that_fails_is_asked_again_later_and_at_last_no_more(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[float] = []

    def fails(received: Received, transaction: Any) -> None:
        transaction.rpush(f"{bus.prefix}.effects.group", "half")
        asked.append(time.monotonic() - begin)
        raise ValueError("no such slot")

    begin = time.monotonic()
    data = bus.add(report(0))
    bus.add(alert(0))
    handlers = {"report": fails, "alert": bus.record()}
    consumer = bus.consumer(handlers=handlers, retry_s=0.05, max_deliveries=4)
    with caplog.at_level(logging.ERROR):
        poll_until(bus.letters, consumer)
    assert len(asked) == 4
    # The server counts whole milliseconds.
    assert asked[1] > 0.048
    assert asked[2] > 0.146
    assert asked[3] > 0.344
    (letter,) = bus.letters()
    assert letter.sealed == data
    assert letter.role is Role.NORMAL
    assert letter.group == "group"
    assert letter.reason == "failed 4 times: ValueError('no such slot')"
    assert time.time() - letter.buried_at < 60
    assert bus.effects() == ["alert 0"], "a failure holds up nobody and takes half no effect"
    assert bus.pending() == 0
    assert consumer.counts == Counter(handled=1, failed=4, buried=1)


def test_a_failure_that_passes_leaves_no_trace(bus: Bus) -> None:
    record, times = bus.record(), iter(range(10))

    def fails_twice(received: Received, transaction: Any) -> None:
        if next(times) < 2:
            raise OSError("busy")
        record(received, transaction)

    bus.add(report(0))
    consumer = bus.consumer(handlers={"report": fails_twice})
    poll_until(bus.effects, consumer)
    drain(consumer)
    assert bus.effects() == ["0"]
    assert bus.letters() == []
    assert bus.pending() == 0


def test_a_command_that_the_server_refuses_is_a_dead_letter(bus: Bus) -> None:
    """The server carries out the rest of such a transaction, the acknowledgement too."""
    bus.client.set(f"{bus.prefix}.text", "no list")

    def wrong(received: Received, transaction: Any) -> None:
        transaction.rpush(f"{bus.prefix}.text", "x")

    bus.add(report(0))
    consumer = bus.consumer(handlers={"report": wrong})
    drain(consumer)
    (letter,) = bus.letters()
    assert "WRONGTYPE" in letter.reason
    assert consumer.counts == Counter(failed=1, buried=1)
    assert bus.pending() == 0


def test_what_a_dead_member_held_is_taken_over(bus: Bus) -> None:
    for number in range(150):
        bus.add(report(number))
    bus.consumer(name="dead").poll(block_s=0, count=1)
    streams = {bus.settings.streams[Role.NORMAL]: ">"}
    bus.client.xreadgroup("group", "dead", streams, count=120)  # and it dies
    assert bus.pending() == 120
    alive = bus.consumer(name="alive")
    poll_until(lambda: len(bus.effects()) == 150, alive)
    drain(alive)
    assert sorted(bus.effects(), key=int) == [str(number) for number in range(150)]
    assert alive.counts["claimed"] == 120
    assert bus.pending() == 0


def test_many_that_fail_do_not_hide_what_a_dead_member_held(bus: Bus) -> None:
    record = bus.record()

    def fails(received: Received, transaction: Any) -> None:
        if received.message.id != "500":
            raise ValueError
        record(received, transaction)

    bus.add_reports(range(250))
    consumer = bus.consumer(name="alive", handlers={"report": fails}, retry_s=60.0)
    drain(consumer)
    bus.add(report(500))
    streams = {bus.settings.streams[Role.NORMAL]: ">"}
    bus.client.xreadgroup("group", "dead", streams)
    poll_until(bus.effects, consumer)
    assert bus.effects() == ["500"]
    assert bus.pending() == 250


def test_a_message_that_kills_its_consumers_is_a_dead_letter(bus: Bus) -> None:
    data = bus.add(report(0))
    consumer = bus.consumer(max_deliveries=3)
    stream = bus.settings.streams[Role.NORMAL]
    bus.client.xgroup_create(stream, "group", id="0")
    ((_, ((entry_id, _),)),) = bus.client.xreadgroup("group", "one", {stream: ">"})
    for name in ("two", "three"):
        bus.client.xclaim(stream, "group", name, 0, [entry_id])
    poll_until(bus.letters, consumer)
    (letter,) = bus.letters()
    assert letter.sealed == data
    assert letter.reason == "delivered 3 times and never acknowledged"
    assert bus.effects() == []
    assert bus.pending() == 0


def test_an_entry_that_was_deleted_while_it_was_pending_is_forgotten(bus: Bus) -> None:
    bus.add(report(0))
    stream = bus.settings.streams[Role.NORMAL]
    bus.client.xgroup_create(stream, "group", id="0")
    ((_, ((entry_id, _),)),) = bus.client.xreadgroup("group", "dead", {stream: ">"})
    bus.client.xdel(stream, entry_id)
    consumer = bus.consumer()
    poll_until(lambda: bus.pending() == 0, consumer)
    assert bus.effects() == []
    assert bus.letters() == []


def test_a_dead_letter_is_replayed_into_the_groups_that_lack_it(bus: Bus) -> None:
    works, record = threading.Event(), bus.record("one")

    def fails(received: Received, transaction: Any) -> None:
        if not works.is_set():
            raise ValueError
        record(received, transaction)

    bus.add(report(0))
    one = bus.consumer("one", handlers={"report": fails}, max_deliveries=1)
    two = bus.consumer("two")
    drain(one, two)
    (letter,) = bus.letters()
    assert letter.group == "one"
    works.set()
    replay(bus.client, bus.settings, letter)
    assert bus.letters() == []
    drain(one, two)
    assert bus.effects("one") == bus.effects("two") == ["0"]
    assert two.counts == Counter(handled=1, seen=1)


# -- once -----------------------------------------------------------------------------------------


def test_what_is_sent_twice_takes_effect_once(bus: Bus) -> None:
    data = bus.add(report(0))
    bus.add(report(1))
    bus.add_bytes(Role.NORMAL, data)
    consumer = bus.consumer()
    drain(consumer)
    assert bus.effects() == ["0", "1"]
    assert consumer.counts == Counter(handled=2, seen=1)
    assert bus.letters() == []


def test_of_two_members_that_race_one_makes_it_take_effect(bus: Bus) -> None:
    """One takes a message over while the other is about to finish with it."""
    record = bus.record()
    fast = bus.consumer(name="fast", idle_s=0.001)

    def slow(received: Received, transaction: Any) -> None:
        record(received, transaction)
        poll_until(bus.effects, fast)

    bus.add(report(0))
    late = bus.consumer(name="late", handlers={"report": slow})
    drain(late)
    assert bus.effects() == ["0"]
    assert late.counts["handled"] == 0
    assert (fast.counts["handled"], fast.counts["claimed"]) == (1, 1)
    assert bus.pending() == 0


def test_members_that_snatch_messages_from_each_other_lose_and_repeat_none(bus: Bus) -> None:
    members = [bus.consumer(name=str(each), idle_s=0.002, max_deliveries=1000) for each in range(3)]
    drain(*members)
    for number in range(200):
        bus.add(report(number))
        if number % 10 == 0:
            bus.add_bytes(Role.NORMAL, bus.add(report(1000 + number)))
    with running(*members):
        until(lambda: len(bus.effects()) >= 220 and not bus.pending())
    expected = [*range(200), *range(1000, 1200, 10)]
    assert sorted(map(int, bus.effects())) == expected
    assert bus.letters() == []


# -- what may not act -----------------------------------------------------------------------------

OTHER = Signer(b"what an attacker would have")

HOSTILE: dict[str, tuple[Refusal, Callable[[Bus], bytes]]] = {
    "noise": (Refusal.FORGED, lambda bus: bytes(range(256))),
    "empty": (Refusal.FORGED, lambda bus: b""),
    "signed with another key": (Refusal.FORGED, lambda bus: sealed(report(0), OTHER)),
    "one bit flipped": (
        Refusal.FORGED,
        lambda bus: sealed(report(0), bus.signer)[:-1] + b"\xff",
    ),
    "copied from another stream": (
        Refusal.FORGED,
        lambda bus: sealed(alert(0), bus.signer),
    ),
    "a kind of another stream": (
        Refusal.WRONG_STREAM,
        lambda bus: sealed(alert(0), bus.signer, role=Role.NORMAL),
    ),
    "no such kind": (Refusal.MALFORMED, lambda bus: sealed(report(0), bus.signer, kind="spell")),
    "recorded long ago": (
        Refusal.STALE,
        lambda bus: sealed(report(0), bus.signer, created_at=time.time() - 100_000, ttl_s=1e9),
    ),
    "from the future": (
        Refusal.FROM_THE_FUTURE,
        lambda bus: sealed(report(0), bus.signer, created_at=time.time() + 1000),
    ),
}


def test_what_may_not_act_changes_nothing_and_is_a_counted_dead_letter(bus: Bus) -> None:
    admission = Admission(bus.signer)
    consumer = bus.consumer(admission=admission)
    hostile = [make(bus) for _, make in HOSTILE.values()]
    for data in hostile:
        bus.add_bytes(Role.NORMAL, data)
    bus.client.xadd(bus.settings.streams[Role.NORMAL], {"other": "field"})
    bus.add(report(7))
    drain(consumer)
    assert bus.effects() == ["7"]
    expected = [why for why, _ in HOSTILE.values()] + [Refusal.FORGED]
    assert admission.refused == {why: expected.count(why) for why in expected}
    letters = bus.letters()
    assert [letter.sealed for letter in letters] == [*hostile, b""]
    assert [letter.reason.split(":")[0] for letter in letters] == [why.value for why in expected]
    refused = len(expected)
    assert consumer.counts == Counter(refused=refused, buried=refused, handled=1)
    assert bus.pending() == 0


def test_what_was_refused_is_refused_when_it_is_replayed(bus: Bus) -> None:
    bus.add_bytes(Role.EMERGENCY, sealed(alert(0), OTHER))
    consumer = bus.consumer()
    drain(consumer)
    (letter,) = bus.letters()
    replay(bus.client, bus.settings, letter)
    drain(consumer)
    (again,) = bus.letters()
    assert (again.sealed, again.role) == (letter.sealed, Role.EMERGENCY)
    assert bus.effects() == []


def test_a_recorded_message_that_is_sent_again_changes_nothing(bus: Bus) -> None:
    """In every group, by every member; onto another stream it is forged."""
    data = bus.add(report(0))
    consumers = [bus.consumer("one"), bus.consumer("one", name="other"), bus.consumer("two")]
    drain(*consumers)
    for role in (Role.NORMAL, Role.EMERGENCY, Role.NORMAL):
        bus.add_bytes(role, data)
    drain(*consumers)
    assert bus.effects("one") == bus.effects("two") == ["0"]
    assert sum(each.counts["seen"] for each in consumers) == 4
    assert [(each.role, each.group) for each in bus.letters()] == [
        (Role.EMERGENCY, "one"),
        (Role.EMERGENCY, "two"),
    ]


def test_an_old_policy_does_not_come_back(bus: Bus) -> None:
    versions = {"learned": 4}
    consumer = bus.consumer(
        admission=Admission(bus.signer, versions=versions), roles=(Role.POLICY,)
    )
    for version in (3, 5):
        bus.add(policy(version))
    drain(consumer)
    assert bus.effects() == ["policy 5"]
    (letter,) = bus.letters()
    assert letter.reason.startswith("old_version")


def test_a_question_that_nobody_heard_in_time_is_dropped(bus: Bus) -> None:
    bus.add(question(1), created_at=time.time() - 5, ttl_s=2.0)
    bus.add(question(2), ttl_s=2.0)
    consumer = bus.consumer()
    drain(consumer)
    assert bus.effects() == ["Question"]
    assert consumer.counts == Counter(expired=1, handled=1)
    assert bus.letters() == []
    assert bus.pending() == 0
