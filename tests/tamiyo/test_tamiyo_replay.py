from pathlib import Path
from typing import Any

import pytest

from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    Decision,
    Event,
    InvalidArgument,
    Objective,
    SystemState,
)
from esper_lightning.nissa.journal import JournalWriter
from esper_lightning.tamiyo import Replay


def state(epoch: int, max_epochs: int | None = 9) -> SystemState:
    return SystemState(
        run_id="run",
        epoch=epoch,
        max_epochs=max_epochs,
        global_step=10 * epoch,
        steps_per_epoch=10,
        objective=Objective(name="val/loss", value=1.0),
        metrics={},
        slots=(),
        host_parameters=10,
        num_parameters=10,
    )


def decision(epoch: int, slot: str, **changes: Any) -> Decision:
    command = AdaptationCommand(
        id=f"{epoch}/{slot}", run_id="run", kind=CommandKind.CULL, slot=slot, reason="told to"
    )
    return Decision(run_id="run", epoch=epoch, policy="remote", command=command, **changes)


def replay(folder: Path, *events: Event) -> Replay:
    with JournalWriter(folder / "events.jsonl") as journal:
        journal.write(*events)
    return Replay(folder)


def slots(policy: Replay, asked: SystemState) -> list[str]:
    return [choice.slot for choice in policy.decide(asked)]


def test_each_boundary_has_its_own_decisions(tmp_path: Path) -> None:
    events = [state(0), decision(0, "a"), decision(0, "b"), state(1), decision(1, "c")]
    policy = replay(tmp_path, *events)
    assert slots(policy, state(0)) == ["a", "b"]
    assert slots(policy, state(1)) == ["c"]
    assert [each.kind for each in policy.decide(state(2))] == [CommandKind.NOOP]


def test_what_was_refused_is_left_out(tmp_path: Path) -> None:
    events = [state(0), decision(0, "a", refused="too late"), decision(0, "b")]
    assert slots(replay(tmp_path, *events), state(0)) == ["b"]


def test_decisions_of_the_governor_are_its_own(tmp_path: Path) -> None:
    """They stand before the state of their epoch."""
    events = [state(0), decision(0, "a"), decision(1, "suspect"), state(1), decision(1, "b")]
    policy = replay(tmp_path, *events)
    assert slots(policy, state(0)) == ["a"]
    assert slots(policy, state(1)) == ["b"]


def test_of_an_epoch_that_was_trained_twice_the_later_decisions_hold(tmp_path: Path) -> None:
    events = [state(0), state(1), decision(1, "a"), state(1), decision(1, "b")]
    assert slots(replay(tmp_path, *events), state(1)) == ["b"]


def test_a_run_that_ended_early_has_two_boundaries_in_its_last_epoch(tmp_path: Path) -> None:
    events = [state(3), decision(3, "a"), state(3, max_epochs=4), decision(3, "b")]
    policy = replay(tmp_path, *events)
    assert slots(policy, state(3)) == ["a"]
    assert slots(policy, state(3, max_epochs=4)) == ["b"]


@pytest.mark.parametrize("journal", [None, "nothing"])
def test_a_journal_that_is_not_there_is_told(tmp_path: Path, journal: str | None) -> None:
    with pytest.raises(InvalidArgument, match="no journal .*events.jsonl"):
        Replay(None if journal is None else tmp_path / journal)
