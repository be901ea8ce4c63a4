"""Finished runs as recordings and episodes: what was decided is there, exactly as it was."""

from pathlib import Path

import msgspec
import pytest
import torch
from twin_runs import train

from esper_lightning.leyline import DecodeError, InvalidArgument, RiskLevel
from esper_lightning.nissa.journal import JOURNAL_NAME
from esper_lightning.simic.recording import SUMMARY_NAME, Recording, episode, read
from esper_lightning.simic.reward import Utility
from esper_lightning.simic.softening import softened
from esper_lightning.tamiyo import Heuristic, Never
from esper_lightning.tamiyo.learned import Learned, StoredPolicy

SOFT = softened(StoredPolicy.load("cloned"), 3.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run in which a policy drew its choices, and its twin."""
    folder = tmp_path_factory.mktemp("runs")
    drawn = Learned(policy=SOFT, sample=True, seed=1)
    return train(folder / "drawn", drawn), train(folder / "alone", Never())


@pytest.fixture(scope="module")
def recording(runs: tuple[Path, Path]) -> Recording:
    return read(*runs, task="digits", seed=0)


def test_each_step_is_what_the_policy_saw_and_chose(recording: Recording) -> None:
    found = episode(recording)
    assert found is not None
    assert found.terminated
    assert found.tail is None
    assert len(found.steps) == len(recording.boundaries) - 1 == 9, "at the last nobody is asked"
    assert any(len(step.actions) > 1 for step in found.steps)
    told = SOFT.network.evaluate(
        [step.observation for step in found.steps], [step.actions for step in found.steps]
    )
    logged = torch.tensor([step.log_probability for step in found.steps])
    torch.testing.assert_close(told.log_probabilities.sum(dim=1), logged, rtol=0, atol=1e-4)
    decided = [
        (each.policy, each.policy_version)
        for boundary in recording.boundaries
        for each in boundary.decisions
    ]
    assert set(decided) == {("learned", SOFT.card.version)}
    assert {step.version for step in found.steps} == {SOFT.card.version}


def test_rewards_add_up_to_what_the_network_is_worth(recording: Recording) -> None:
    found = episode(recording)
    assert found is not None
    assert recording.end is not None
    worth = Utility().of([recording.end], [recording.twin_end], mode="min")
    assert found.utility == worth != 0
    assert sum(found.rewards) == pytest.approx(worth - found.steps[0].potential)
    dear = episode(recording, utility=Utility(rent_parameters=1.0))
    assert dear is not None
    assert dear.utility < worth


def test_before_anything_was_planted_a_run_is_its_twin(recording: Recording) -> None:
    found = episode(recording)
    assert found is not None
    acts = [len(step.actions) > 1 for step in found.steps]
    before = found.steps[: acts.index(True) + 1]
    assert [step.potential for step in before] == [0.0] * len(before)


def test_decisions_alone_change_no_reward(recording: Recording) -> None:
    found = episode(recording)
    assert found is not None
    claimed = [
        msgspec.structs.replace(
            boundary,
            decisions=tuple(
                msgspec.structs.replace(each, log_probability=-1.0, value=9.0)
                for each in boundary.decisions
            ),
        )
        for boundary in recording.boundaries
    ]
    other = episode(msgspec.structs.replace(recording, boundaries=tuple(claimed)))
    assert other is not None
    assert other.rewards == found.rewards


def test_a_twin_earns_nothing_and_teaches_nothing(runs: tuple[Path, Path]) -> None:
    alone = read(runs[1], runs[1], task="digits", seed=0)
    assert episode(alone) is None, "it has no probabilities"
    assert alone.end == alone.twin_end
    assert alone.end is not None
    assert Utility().of([alone.end], [alone.twin_end], mode="min") == 0


def test_a_boundary_that_the_risk_engine_decided_is_no_step(recording: Recording) -> None:
    number = 4
    boundary = recording.boundaries[number]
    first, *rest = boundary.decisions
    risky = msgspec.structs.replace(first, policy="risk", log_probability=None)
    assert first.risk is not None
    assert first.risk.level is RiskLevel.GREEN
    boundaries = list(recording.boundaries)
    boundaries[number] = msgspec.structs.replace(boundary, decisions=(risky, *rest))
    changed = msgspec.structs.replace(recording, boundaries=tuple(boundaries))
    whole, found = episode(recording), episode(changed)
    assert whole is not None
    assert found is not None
    kept = [*whole.steps[:number], *whole.steps[number + 1 :]]
    assert [step.potential for step in found.steps] == [step.potential for step in kept]
    assert found.id != whole.id
    assert sum(found.rewards) == pytest.approx(sum(whole.rewards))


def test_what_was_refused_later_is_still_what_the_policy_chose(recording: Recording) -> None:
    refused = [
        msgspec.structs.replace(
            boundary,
            decisions=tuple(
                msgspec.structs.replace(each, refused="the gate did not let it pass")
                for each in boundary.decisions
            ),
        )
        for boundary in recording.boundaries
    ]
    found = episode(msgspec.structs.replace(recording, boundaries=tuple(refused)))
    whole = episode(recording)
    assert whole is not None
    assert found is not None
    assert [step.actions for step in found.steps] == [step.actions for step in whole.steps]


def test_a_run_that_was_cut_off_has_a_tail(runs: tuple[Path, Path], tmp_path: Path) -> None:
    lines = (runs[0] / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    states = [number for number, line in enumerate(lines) if b'"type":"state"' in line]
    (tmp_path / JOURNAL_NAME).write_bytes(b"".join(lines[: states[6] + 1]) + b'{"type":"deci')
    cut = read(tmp_path, runs[1], task="digits", seed=0)
    found, whole = episode(cut), episode(read(*runs, task="digits", seed=0))
    assert whole is not None
    assert found is not None
    assert not found.terminated
    assert len(found.steps) == 6, "what became of the last decision is not known"
    assert found.tail is not None
    assert torch.equal(found.tail.run, whole.steps[6].observation.run)
    assert found.utility == whole.steps[6].potential
    assert found.rewards == whole.rewards[:6]


def test_stored_and_read_again_it_is_the_same(recording: Recording) -> None:
    data = recording.to_bytes()
    again = Recording.from_bytes(data)
    assert again == recording
    assert again.id == recording.id
    assert len(data) < 1000 * len(recording.boundaries)
    for wrong in (data[:-5], b"", b"nothing", data[:40] + bytes([data[40] ^ 1]) + data[41:]):
        with pytest.raises(DecodeError):
            Recording.from_bytes(wrong)


def test_the_twin_is_the_host_alone_and_at_its_end(runs: tuple[Path, Path], tmp_path: Path) -> None:
    grown = train(tmp_path / "grown", Heuristic(), epochs=12)
    with pytest.raises(InvalidArgument, match="no twin: it grew"):
        read(grown, grown, task="digits", seed=0)
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / JOURNAL_NAME).write_bytes((runs[1] / JOURNAL_NAME).read_bytes())
    with pytest.raises(InvalidArgument, match="did not come to its end"):
        read(runs[0], cut, task="digits", seed=0)
    (cut / SUMMARY_NAME).write_bytes((runs[1] / SUMMARY_NAME).read_bytes())
    assert read(runs[0], cut, task="digits", seed=0).end is not None
    shorter = train(tmp_path / "shorter", Never(), epochs=8)
    with pytest.raises(InvalidArgument, match="the twin has no epoch 8"):
        episode(read(runs[0], shorter, task="digits", seed=0))


def test_who_decided_is_told_by_decisions_whoever_had_the_last_word(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """At the last boundary the risk engine settles, which the summary takes for the policy."""
    for name in (JOURNAL_NAME, SUMMARY_NAME):
        text = (runs[0] / name).read_text()
        if name == SUMMARY_NAME:
            assert text.count('"policy": "learned"') == 1
            text = text.replace('"policy": "learned"', '"policy": "risk"')
        (tmp_path / name).write_text(text)
    found = episode(read(tmp_path, runs[1], task="digits", seed=0))
    assert found is not None
    assert found.policy == "learned"
    assert len(found.steps) == 9


def test_of_epochs_that_were_trained_twice_the_second_time_counts(
    runs: tuple[Path, Path], tmp_path: Path, recording: Recording
) -> None:
    """A run that was killed in its ninth epoch, and resumed from its fifth."""
    lines = (runs[0] / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    epochs = [number for number, line in enumerate(lines) if b'"type":"state"' in line]
    (tmp_path / JOURNAL_NAME).write_bytes(
        b"".join([*lines[: epochs[8]], lines[0], *lines[epochs[4] : epochs[6]]])
    )
    cut = read(tmp_path, runs[1], task="digits", seed=0)
    assert [each.state.epoch for each in cut.boundaries] == list(range(6))
    assert cut.boundaries == recording.boundaries[:6]


def test_where_neither_was_measured_at_its_end_nothing_is_told(recording: Recording) -> None:
    assert recording.end is not None
    blind = [
        msgspec.structs.replace(each, value=None) for each in (recording.end, recording.twin_end)
    ]
    with pytest.raises(InvalidArgument, match="neither run .* nor its twin"):
        episode(msgspec.structs.replace(recording, end=blind[0], twin_end=blind[1]))
    broke = episode(msgspec.structs.replace(recording, end=blind[0]))
    assert broke is not None
    assert broke.utility < -2.9
