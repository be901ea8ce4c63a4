"""Lessons from recorded runs: what the heuristic would have done there, as indices."""

from pathlib import Path

import pytest

from esper_lightning.leyline import CommandKind, Decision, InvalidArgument, SystemState
from esper_lightning.nissa.journal import read_journal
from esper_lightning.simic import Lesson, journals, lessons
from esper_lightning.tamiyo.observation import KINDS
from esper_lightning.tamiyo.trial import is_last

RUN = Path(__file__).parents[2] / "docs" / "results" / "explained" / "events.jsonl"


@pytest.fixture(scope="module")
def learned() -> list[Lesson]:
    return lessons(RUN)


def test_there_is_one_for_each_boundary_but_the_last(learned: list[Lesson]) -> None:
    states = [event for event in read_journal(RUN) if isinstance(event, SystemState)]
    assert len(learned) == len(states) - 1
    assert not any(is_last(state) for state in states[:-1])


def test_of_a_run_of_the_heuristic_they_are_its_decisions(learned: list[Lesson]) -> None:
    events = read_journal(RUN)
    last = max(event.epoch for event in events if isinstance(event, SystemState))
    decided = {
        (event.epoch, event.command.kind, event.command.slot, event.command.blueprint)
        for event in events
        if isinstance(event, Decision)
        and event.policy == "heuristic"
        and event.command.kind is not CommandKind.NOOP
        and event.epoch < last
    }
    assert decided
    told = set()
    for epoch, lesson in enumerate(learned):
        seen = lesson.observation
        for action in lesson.actions[:-1]:
            kind = KINDS[action.kind]
            plants = kind is CommandKind.GERMINATE
            blueprint = seen.blueprint_names[action.blueprint] if plants else ""
            told.add((epoch, kind, seen.slot_names[action.slot], blueprint))
    assert told == decided


def test_the_last_action_is_to_do_no_more(learned: list[Lesson]) -> None:
    assert {KINDS[lesson.actions[-1].kind] for lesson in learned} == {CommandKind.NOOP}
    assert any(lesson.acts for lesson in learned)


def test_another_policy_s_run_has_lessons_of_the_heuristic(tmp_path: Path) -> None:
    """The same boundaries, of which the record says that somebody else waited at each."""
    lines = [
        line.replace('"policy":"heuristic"', '"policy":"never"')
        for line in RUN.read_text().splitlines()
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    assert [each.actions for each in lessons(tmp_path / "events.jsonl")] == [
        each.actions for each in lessons(RUN)
    ]


def test_journals_are_found_below_folders(tmp_path: Path) -> None:
    for name in ("1", "0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").touch()
    assert [path.parent.name for path in journals([tmp_path])] == ["0", "1"]
    assert journals([tmp_path / "1" / "events.jsonl"]) == [tmp_path / "1" / "events.jsonl"]


def test_a_place_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="multirun"):
        journals([tmp_path])
    with pytest.raises(InvalidArgument, match="no events.jsonl"):
        journals([tmp_path / "missing"])
