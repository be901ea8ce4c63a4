import logging
from pathlib import Path

import pytest
from msgspec.structs import replace
from synthetic_run import RUN_ID, synthetic_run

from esper_lightning.leyline import (
    DecodeError,
    Event,
    InvalidArgument,
    RunEnded,
    RunStarted,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.journal import JournalWriter, read_journal, timeline

RUN = synthetic_run(("a", "b.c"), 12)


def written(path: Path, events: list[Event] = RUN) -> Path:
    with JournalWriter(path) as journal:
        journal.write(*events)
    return path


def test_run_has_every_kind_of_event():
    assert len({type(event) for event in RUN}) == 5


@pytest.mark.parametrize("event", {type(event): event for event in RUN}.values())
def test_event_survives_the_round_trip(tmp_path, event):
    assert read_journal(written(tmp_path / "events.jsonl", [event])) == [event]


def test_one_line_for_each_event_in_order(tmp_path):
    path = written(tmp_path / "deep" / "er" / "events.jsonl")
    assert read_journal(path) == RUN
    assert path.read_bytes().count(b"\n") == len(RUN)


def test_what_was_written_can_be_read_before_close(tmp_path):
    journal = JournalWriter(tmp_path / "events.jsonl")
    journal.write(*RUN[:3])
    assert read_journal(journal.path) == RUN[:3]
    journal.close()
    journal.close()


def test_journal_of_the_same_run_is_continued(tmp_path):
    path = written(tmp_path / "events.jsonl", RUN[:5])
    written(path, RUN[5:])
    assert read_journal(path) == RUN


def test_journal_of_another_run_is_refused_and_kept(tmp_path):
    path = written(tmp_path / "events.jsonl")
    before = path.read_bytes()
    other = replace(RUN[0], run_id="other")
    with JournalWriter(path) as journal, pytest.raises(InvalidArgument) as error:
        journal.write(RUN[-1], other)
    for told in (RUN_ID, "other", str(path), "a directory of its own"):
        assert told in str(error.value)
    assert path.read_bytes() == before


def test_two_runs_do_not_share_a_new_journal(tmp_path):
    with (
        JournalWriter(tmp_path / "events.jsonl") as journal,
        pytest.raises(InvalidArgument, match="run 'other'"),
    ):
        journal.write(RUN[0], replace(RUN[1], run_id="other"))
    assert read_journal(tmp_path / "events.jsonl") == []


@pytest.mark.parametrize("missing", [2, 3, 20])
def test_torn_last_line_is_dropped_and_told(tmp_path, caplog, missing):
    path = written(tmp_path / "events.jsonl")
    path.write_bytes(path.read_bytes()[:-missing])
    with caplog.at_level(logging.WARNING):
        assert read_journal(path) == RUN[:-1]
    assert f"{path}, line {len(RUN)} is incomplete" in caplog.text


def test_last_line_without_its_newline_is_whole(tmp_path):
    path = written(tmp_path / "events.jsonl")
    path.write_bytes(path.read_bytes()[:-1])
    assert read_journal(path) == RUN


@pytest.mark.parametrize("missing", [0, 1, 2, 30])
def test_killed_run_continues_on_whole_lines(tmp_path, missing):
    path = written(tmp_path / "events.jsonl", RUN[:6])
    path.write_bytes(path.read_bytes()[: -missing or None])
    kept = RUN[:6] if missing < 2 else RUN[:5]
    written(path, RUN[6:])
    assert read_journal(path) == kept + RUN[6:]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (b"{}", "missing required field `type`"),
        (b"", "not complete JSON"),
        (b'{"type":"run_ended"}', "missing required field"),
        (b'{"type":"run_ended","run_id":"x","epoch":"1","step":1,"outcome":"a"}', "epoch"),
        (b'{"type":"party"}', "party"),
        (b"\xff\xfe", "line 3"),
    ],
)
def test_damage_elsewhere_names_file_line_and_field(tmp_path, damage, told):
    path = written(tmp_path / "events.jsonl")
    lines = path.read_bytes().split(b"\n")
    lines[2] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DecodeError, match="line 3") as error:
        read_journal(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_timeline_of_an_uninterrupted_run_is_the_run():
    assert timeline(RUN) == RUN
    assert timeline([]) == []


@pytest.mark.parametrize("resumed_at", range(1, 12))
@pytest.mark.parametrize("later", [0, 1, 5])
def test_resumed_run_replaces_what_it_repeats(resumed_at, later):
    first = [e for e in RUN[1:-1] if e.epoch < resumed_at]
    lost = [e for e in RUN[1:-1] if e.epoch >= resumed_at][:later]
    killed = RunEnded(run_id=RUN_ID, epoch=resumed_at, step=9, outcome="failed: power")
    again = [e for e in RUN[1:] if e.epoch >= resumed_at]
    assert timeline([RUN[0], *first, *lost, killed, RUN[0], *again]) == RUN


def test_journal_and_memory_together_are_one_account():
    half = len(RUN) // 2
    assert timeline(RUN[:half] + RUN) == RUN
    assert timeline(RUN + RUN) == RUN


def test_start_without_an_epoch_replaces_nothing():
    failed = RunEnded(run_id=RUN_ID, epoch=0, step=0, outcome="failed: no data")
    assert timeline([*RUN, RUN[0], failed]) == RUN


def test_epochs_never_fall_in_a_timeline():
    told = timeline([*RUN[:40], *RUN[:30], *RUN])
    epochs = [event.epoch for event in told if isinstance(event, StageChanged | SystemState)]
    assert epochs == sorted(epochs)
    assert sum(isinstance(event, RunStarted) for event in told) == 1
