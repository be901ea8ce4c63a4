"""Runs are put together from what the bus tells, whatever comes twice, late, torn or never."""

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from bus_helpers import Bus, bus_at, drain, poll_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import KINDS, started
from synthetic_runs import events, recording

from esper_lightning.leyline import (
    Event,
    EventEnvelope,
    RunEnded,
    RunStarted,
    Signer,
    SystemState,
    pack,
)
from esper_lightning.oona import KINDS as KIND_OF
from esper_lightning.oona import Received
from esper_lightning.simic.experience import BusFeed, Experience
from esper_lightning.simic.experience.pairing import beginning
from esper_lightning.simic.recording import episode

KEY = b"the key of these tests"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", KEY.decode())


@pytest.fixture
def experience(tmp_path: Path) -> Iterator[Experience]:
    with Experience(tmp_path / "experience.sqlite") as opened:
        yield opened


def received(told: Sequence[Event], *, run: str = "") -> list[Received]:
    """In envelopes, made one after the other."""
    return [
        Received(
            EventEnvelope(
                id=f"{run or event.run_id} {number} {type(event).__name__}",
                kind=KIND_OF[type(event)],
                source="run",
                created_at=1000.0 + number,
                ttl_s=1.0,
                payload=pack(event),
            ),
            event,
        )
        for number, event in enumerate(told)
    ]


def hear(feed: BusFeed, messages: Sequence[Received]) -> None:
    for each in messages:
        feed(each, None)


TWIN = received(events("alone", version=None))
RUN = received(events("run", version=4))


def test_a_run_is_kept_when_it_is_over_and_its_twin_is_known(experience: Experience) -> None:
    feed = BusFeed(experience, name=lambda first: ("digits", first.epoch + 7))
    hear(feed, TWIN)
    hear(feed, RUN[:-1])
    assert len(experience) == 0
    hear(feed, RUN[-1:])
    (kept,) = experience.recordings()
    expected = recording("run", version=4)
    assert kept.boundaries == expected.boundaries
    assert (kept.twin, kept.twin_end, kept.end) == (
        expected.twin,
        expected.twin_end,
        expected.end,
    )
    assert (kept.run_id, kept.task, kept.seed) == ("run", "digits", 7)
    assert (kept.policy, kept.version, kept.source) == ("learned", 4, "bus")
    assert kept.versions == {"a": "1"}
    assert {name: num for name, num in feed.counts.items() if num} == {"twins": 1, "added": 1}


def test_a_run_waits_for_its_twin_also_in_another_process_later(tmp_path: Path) -> None:
    path = tmp_path / "experience.sqlite"
    with Experience(path) as experience:
        hear(BusFeed(experience), RUN)
        assert len(experience) == 0
    with Experience(path) as experience:
        hear(BusFeed(experience), TWIN)
        assert [each.run_id for each in experience.recordings()] == ["run"]


def test_a_twin_of_another_seed_or_length_is_none(experience: Experience) -> None:
    feed = BusFeed(experience)
    hear(feed, received(events("other seed", seed=1, version=None)))
    hear(feed, received(events("longer", epochs=4, version=None)))
    hear(feed, RUN)
    assert len(experience) == 0


def test_where_nothing_is_named_runs_of_one_seed_have_one_number(experience: Experience) -> None:
    feed = BusFeed(experience)
    for seed in (0, 1):
        hear(feed, received(events(f"alone {seed}", seed=seed, version=None)))
        for name in ("a", "b"):
            hear(feed, received(events(f"{name} {seed}", seed=seed)))
    numbers = {each.run_id: each.seed for each in experience.recordings()}
    assert numbers["a 0"] == numbers["b 0"] != numbers["a 1"] == numbers["b 1"]
    assert {each.task for each in experience.recordings()} == {
        "network of 100 parameters, 3 epochs"
    }


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.randoms(use_true_random=False), again=st.lists(st.integers(0, 13), max_size=6))
def test_the_order_of_messages_and_what_comes_twice_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random, again: list[int]
) -> None:
    messages = [*TWIN, *RUN]
    messages += [messages[number] for number in again]
    order.shuffle(messages)
    path = tmp_path_factory.mktemp("bus") / "experience.sqlite"
    with Experience(path) as experience:
        # Two members of the group, by turns.
        feeds = itertools.cycle([BusFeed(experience), BusFeed(experience)])
        for each, feed in zip(messages, feeds, strict=False):
            feed(each, None)
        (kept,) = experience.recordings()
    assert kept.boundaries == recording("run", version=4).boundaries
    assert kept.end is not None


@pytest.mark.parametrize("missing", range(1, len(RUN)))
def test_a_run_of_which_a_message_is_missing_is_not_kept(
    experience: Experience, missing: int
) -> None:
    feed = BusFeed(experience)
    hear(feed, TWIN)
    hear(feed, [*RUN[:missing], *RUN[missing + 1 :]])
    assert len(experience) == 0
    hear(feed, RUN[missing : missing + 1])
    assert len(experience) == 1


def test_a_run_that_failed_is_cut_off_and_replaced_when_it_was_resumed(
    experience: Experience,
) -> None:
    feed = BusFeed(experience)
    hear(feed, received(events("alone", epochs=5, version=None)))
    whole = events("run", epochs=5)
    # It breaks after its fourth boundary, and goes on from its second.
    broken = [*whole[:9], RunEnded(run_id="run", epoch=4, step=40, outcome="failed: cut")]
    resumed = [whole[0], *whole[5:]]
    messages = received([*broken, *resumed])
    hear(feed, messages[: len(broken)])
    (part,) = experience.recordings()
    assert part.end is None
    assert len(part.boundaries) == 4
    cut = episode(part)
    assert cut is not None
    assert not cut.terminated
    hear(feed, messages[len(broken) :])
    (kept,) = experience.recordings()
    assert kept.end is not None
    assert kept.boundaries == recording("run", epochs=5).boundaries


def test_runs_that_never_end_are_forgotten_in_time(experience: Experience) -> None:
    feed = BusFeed(experience, max_runs=3)
    for number in range(6):
        hear(feed, received(events(f"run {number}", seed=number))[:-1])
    assert feed.counts["forgotten"] == 3
    with experience.database.reading() as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (3,)
        assert database.execute("SELECT count(DISTINCT run_id) FROM arrivals").fetchone() == (3,)
    small = BusFeed(experience, max_bytes=1)
    hear(small, received(events("last"))[:3])
    with experience.database.reading() as database:
        assert database.execute("SELECT run_id FROM runs").fetchall() == [("last",)]


def test_nothing_is_left_of_runs_that_are_settled(experience: Experience) -> None:
    feed = BusFeed(experience)
    hear(feed, [*TWIN, *RUN, *RUN])
    with experience.database.reading() as database:
        assert database.execute("SELECT count(*) FROM arrivals").fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    assert feed.counts["known"] == 1


def test_a_run_begins_otherwise_with_another_seed_and_alike_whatever_is_planted() -> None:
    def first(told: Sequence[Event]) -> str:
        return beginning(next(each for each in told if isinstance(each, SystemState)))

    assert first(events("a")) == first(events("b", version=None)) != first(events("a", seed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_a_bus(kind: str, experience: Experience) -> None:
    signer = Signer(KEY)
    with started(kind) as server, bus_at(server.url, signer) as bus:
        publish(bus, [*events("alone", version=None), *events("run"), *events("cut")[:4]])
        feed = BusFeed(experience)
        consumer = feed.consumer(bus.connect(), bus.settings, retry_s=0.02, idle_s=0.1)
        poll_until(lambda: len(experience), consumer)
        drain(consumer)
        assert bus.pending("simic") == 0
        bus.add(RunStarted(run_id="x", slots=(), host_parameters=1, max_epochs=1, versions={}))
        bus.add_bytes(next(iter(bus.settings.streams)), b"forged" * 20)
        drain(consumer)
        assert consumer.counts["refused"] == 1
    assert [each.run_id for each in experience.recordings()] == ["run"]


def publish(bus: Bus, told: Sequence[Event]) -> None:
    for event in told:
        bus.add(event)
