"""Runs are heard of from folders, as they are written, and from whoever tells them."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from served import write_run
from synthetic_run import RUN_ID, synthetic_run

from esper_lightning.leyline import InvalidArgument, RunEnded, RunSummary, SystemState, encode
from esper_lightning.nissa.journal import JOURNAL_NAME
from esper_lightning.nissa.server import folders
from esper_lightning.nissa.server.folders import FolderSource, JournalTail
from esper_lightning.nissa.server.library import MAX_OPEN, Library
from esper_lightning.nissa.server.sources import STALE_S, Listener

EVENTS = synthetic_run(("features.0", "features.1"), 12, seed=3)
LINES = [encode(event) + b"\n" for event in EVENTS]


def summary(parameters: int, policy: str) -> bytes:
    return encode(
        RunSummary(
            run_id=RUN_ID,
            outcome="finished",
            seed=0,
            host="MLP",
            policy=policy,
            incubation="direct",
            epochs=12,
            steps=120,
            validation={"val/acc": 0.9, "val/loss": 0.1},
            test={},
            host_parameters=1702,
            parameters=parameters,
            host_flops_per_sample=None,
            flops_per_sample=None,
            host_training_flops=None,
            training_flops=None,
            wall_s=1.0,
            grown=(),
            culled=(),
            versions={},
        )
    )


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, sum(map(len, LINES))), max_size=12))
def test_a_journal_is_read_as_it_grows_wherever_it_was_cut(tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("run") / JOURNAL_NAME
    tail, data = JournalTail(path), b"".join(LINES)
    read = list(tail.read().events)
    with path.open("wb") as file:
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
            file.write(data[start:end])
            file.flush()
            read += tail.read().events
    assert read == EVENTS


def test_a_damaged_line_is_left_out_and_counted(tmp_path):
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(LINES[0] + b'{"type":"state"}\n\xff\xfe\n' + LINES[1])
    news = JournalTail(path).read()
    assert news.events == tuple(EVENTS[:2])
    assert news.damaged == 2


def test_a_line_longer_than_any_record_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CHUNK_BYTES", 6000)
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(LINES[0] + b"x" * 20_000 + b"\n" + LINES[1])
    tail, events, damaged = JournalTail(path), [], 0
    for _ in range(10):
        news = tail.read()
        events += news.events
        damaged += news.damaged
    assert events == EVENTS[:2]
    assert damaged == 1


def test_a_journal_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(b"".join(LINES))
    tail = JournalTail(path)
    tail.read()
    path.write_bytes(LINES[0])
    news = tail.read()
    assert news.anew
    assert news.events == (EVENTS[0],)


def test_a_longer_journal_in_the_place_of_another_is_read_anew(tmp_path):
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(b"".join(LINES[:4]))
    tail = JournalTail(path)
    tail.read()
    others = [encode(replace(event, run_id="another-run-id")) + b"\n" for event in EVENTS]
    path.write_bytes(b"".join(others))  # the same file to the system
    news = tail.read()
    assert news.anew
    assert news.damaged == 0
    assert {event.run_id for event in news.events} == {"another-run-id"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on POSIX")
def test_a_pipe_in_the_place_of_a_journal_or_a_summary_is_not_waited_for(tmp_path):
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / JOURNAL_NAME)
    run = write_run(tmp_path / "run", EVENTS[:5])
    os.mkfifo(run / "summary.json")
    (card,) = FolderSource([tmp_path]).cards()
    assert (card.name, card.summary) == ("run", None)


def test_a_summary_longer_than_any_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CHUNK_BYTES", 100)
    run = write_run(tmp_path / "run", EVENTS)
    (run / "summary.json").write_bytes(summary(1702, "never"))
    (card,) = FolderSource([tmp_path]).cards()
    assert card.summary is None


def test_new_runs_are_found_after_the_clock_was_set_back(tmp_path):
    now = [86_400.0 + 4e9]
    source = FolderSource([tmp_path], clock=lambda: now[0])
    assert source.cards() == []
    now[0] = 4e9
    write_run(tmp_path / "run", EVENTS)
    assert [card.name for card in source.cards()] == ["run"]


def test_runs_are_found_below_their_roots_and_links_are_not_followed(tmp_path):
    root = tmp_path / "outputs"
    write_run(root / "2026-01-01" / "10-00-00", EVENTS)
    write_run(root / ".hidden", EVENTS)
    outside = write_run(tmp_path / "elsewhere", EVENTS)
    os.symlink(outside, root / "link")
    (card,) = FolderSource([root]).cards()
    assert card.name == "2026-01-01/10-00-00"
    assert str(tmp_path) not in card.id
    assert card.live


def test_a_run_with_a_summary_or_without_news_is_not_live(tmp_path):
    over = write_run(tmp_path / "over", EVENTS)
    (over / "summary.json").write_bytes(summary(1702, "never"))
    write_run(tmp_path / "stale", EVENTS[:5])
    now = (tmp_path / "stale" / JOURNAL_NAME).stat().st_mtime + STALE_S + 1
    cards = {card.name: card for card in FolderSource([tmp_path], clock=lambda: now).cards()}
    assert not cards["over"].live
    assert cards["over"].summary is not None
    assert not cards["stale"].live


def test_no_root_is_refused():
    with pytest.raises(InvalidArgument, match="at least one folder"):
        FolderSource([])


def test_a_listener_gives_every_event_once_and_forgets_the_stalest_run():
    listener = Listener(most_runs=1, clock=lambda: 1.0)
    for event in EVENTS:
        assert all(card.live for card in listener.cards())
        listener.tell(event)
    (card,) = listener.cards()
    assert not card.live  # the last event is RunEnded
    assert listener.read(card.id).events == tuple(EVENTS)
    assert listener.read(card.id).events == ()
    listener.tell(RunEnded(run_id="other", epoch=0, step=0, outcome="finished"), at=2.0)
    assert [each.name for each in listener.cards()] == ["other"]
    assert listener.read(card.id).events == ()
    with pytest.raises(InvalidArgument, match="run_id"):
        listener.tell(RunEnded(run_id="", epoch=0, step=0, outcome="finished"), at=2.0)


@pytest.mark.parametrize("other", ["a/b", "a-b", "a~20b", "a:b"])
def test_other_names_and_runs_have_other_ids(other):
    keys = set()
    for name in ("a b", other):
        listener = Listener(name)
        for run_id in ("a b", other):
            listener.tell(replace(EVENTS[1], run_id=run_id))
        keys |= {card.id for card in listener.cards()}
    assert len(keys) == 4
    for key in keys:
        assert re.fullmatch(r"[\w.~:-]+", key, re.ASCII)  # the same in every part of an address


def test_of_the_runs_of_a_listener_those_with_the_latest_news_stay():
    listener = Listener(most_runs=2)
    for run_id in ("first", "second", "first", "third"):
        listener.tell(replace(EVENTS[1], run_id=run_id))
    assert [card.name for card in listener.cards()] == ["first", "third"]


def test_the_library_tells_roles_and_keeps_few_runs_in_memory(tmp_path: Path):
    for number in range(MAX_OPEN + 5):
        run = write_run(tmp_path / f"run{number:02d}", EVENTS)
        parameters, policy = [(1702, "never"), (2000, "never"), (2000, "heuristic")][number % 3]
        (run / "summary.json").write_bytes(summary(parameters, policy))
    library = Library([FolderSource([tmp_path])])
    library.refresh()
    roles = {entry.name: entry.role for entry in library.entries}
    assert [roles["run00"], roles["run01"], roles["run02"]] == ["host alone", "static", "grown"]
    assert library.num_open == 0
    patches = [library.open(entry.id) for entry in library.entries]
    assert library.num_open == MAX_OPEN
    again = library.open(library.entries[0].id)
    assert again is not None
    assert again.head == patches[0].head
    assert library.open("no such run") is None


def test_a_run_whose_records_contradict_each_other_hides_no_other(tmp_path):
    write_run(tmp_path / "good", EVENTS)
    states = [event for event in EVENTS if isinstance(event, SystemState)]
    write_run(tmp_path / "odd", states[::-1])
    library = Library([FolderSource([tmp_path])])
    library.refresh()
    found = {entry.name: entry for entry in library.entries}
    assert found["good"].epochs == 12
    assert "odd" in found


def test_a_record_that_nobody_can_count_hides_no_other_run(tmp_path):
    write_run(tmp_path / "good", EVENTS)
    write_run(tmp_path / "odd", EVENTS)

    def hear(card, first, events):
        if card.name == "odd":
            raise ValueError("no such number")

    library = Library([FolderSource([tmp_path])], hear=hear)
    library.refresh()
    assert {entry.name: entry.epochs for entry in library.entries} == {"good": 12, "odd": 12}


def test_a_run_that_was_away_comes_back_whole(tmp_path):
    journal = write_run(tmp_path / "run", EVENTS) / JOURNAL_NAME
    library = Library([FolderSource([tmp_path])])
    for away in (False, True, False):
        if away:
            journal.rename(tmp_path / "away")
        elif not journal.exists():
            (tmp_path / "away").rename(journal)
        library.refresh()
        assert [entry.epochs for entry in library.entries] == ([] if away else [12])


def test_a_run_that_ended_before_an_epoch_was_over_is_not_live(tmp_path):
    write_run(tmp_path / "run", [EVENTS[0], replace(EVENTS[-1], epoch=0, outcome="failed: no")])
    library = Library([FolderSource([tmp_path])])
    library.refresh()
    (entry,) = library.entries
    assert (entry.live, entry.outcome, entry.epochs) == (False, "failed: no", 0)


def test_a_second_opening_tells_events_with_their_places(tmp_path):
    run = write_run(tmp_path / "run", EVENTS)
    (run / "summary.json").write_bytes(summary(2000, "heuristic"))
    heard = []
    library = Library(
        [FolderSource([tmp_path])], hear=lambda card, first, events: heard.append((first, events))
    )
    library.refresh()
    (entry,) = library.entries
    library.open(entry.id)
    assert heard == [(0, tuple(EVENTS))]


def test_a_long_journal_is_read_over_several_refreshes(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CHUNK_BYTES", 4000)
    write_run(tmp_path / "run", EVENTS)
    library = Library([FolderSource([tmp_path])])
    library.refresh()
    assert library.is_behind
    epochs = [library.entries[0].epochs]
    while library.is_behind:
        library.refresh()
        epochs.append(library.entries[0].epochs)
    assert epochs == sorted(epochs)
    assert epochs[0] < epochs[-1] == 12


def test_a_listeners_run_that_tells_nothing_for_long_is_not_live():
    now = [10.0]
    listener = Listener(clock=lambda: now[0])
    listener.tell(EVENTS[0])
    assert listener.cards()[0].live
    now[0] += STALE_S + 1
    (card,) = listener.cards()
    assert (card.live, card.updated) == (False, 10.0)


def test_a_run_that_a_folder_and_a_listener_know_stands_once_in_the_list(tmp_path):
    write_run(tmp_path / "run", EVENTS[:20])
    listener = Listener()
    for event in [*EVENTS[:20], *(replace(event, run_id="other") for event in EVENTS)]:
        listener.tell(event, at=4e9)
    library = Library([FolderSource([tmp_path]), listener])
    library.refresh()
    library.open("this~20process:other")
    library.refresh()
    found = {(entry.run_id, entry.source) for entry in library.entries}
    assert found == {(RUN_ID, "folder"), ("other", "this process")}
    assert len(library.entries) == 2


def test_a_run_that_cannot_be_read_again_stays_in_memory(tmp_path):
    listener = Listener()
    for event in EVENTS:
        listener.tell(event, at=1.0)
    for number in range(MAX_OPEN + 2):
        run = write_run(tmp_path / f"run{number:02d}", EVENTS)
        (run / "summary.json").write_bytes(summary(2000, "heuristic"))
    library = Library([listener, FolderSource([tmp_path])])
    library.refresh()
    (mine,) = listener.cards()
    first = library.open(mine.id)
    for card in FolderSource([tmp_path]).cards():
        library.open(card.id)
    assert library.num_open == MAX_OPEN
    again = library.open(mine.id)
    assert first is not None
    assert again is not None
    assert again.head == first.head is not None
