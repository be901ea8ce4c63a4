"""Rollouts: what is run in a round, and what becomes of runs that fail."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from twin_runs import train

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.rollouts import (
    Assignment,
    Pair,
    Rollouts,
    RolloutsFailed,
    RolloutTask,
    decided_by,
)
from esper_lightning.simic.softening import softened
from esper_lightning.tamiyo import Never
from esper_lightning.tamiyo.learned import Learned, StoredPolicy

POLICY = StoredPolicy.load("cloned")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("runs")
    drawn = Learned(policy=softened(POLICY, 3.0), sample=True)
    return Pair(run=train(folder / "run", drawn), twin=train(folder / "twin", Never()))


def task(number: int) -> RolloutTask:
    return RolloutTask(name=f"task {number % 3}", options=(f"number={number}",))


class Given:
    """Has carried everything out, but what failed."""

    def __init__(self, pair: Pair, *, failing: Sequence[int] = ()) -> None:
        self.pair = pair
        self.failing = failing
        self.asked: list[Assignment] = []

    def __call__(self, assignments: Sequence[Assignment]) -> list[Pair | None]:
        self.asked += assignments
        return [None if number in self.failing else self.pair for number in range(len(assignments))]


def rollouts(given: Given, folder: Path, **options: int) -> Rollouts:
    return Rollouts(tasks=task, carry_out=given, folder=folder, **options)


def test_a_round_has_each_task_several_times_with_other_draws(pair: Pair, tmp_path: Path) -> None:
    given = Given(pair)
    made = rollouts(given, tmp_path, num=6, per_task=3)
    episodes = made(POLICY, 0)
    assert len(episodes) == len(given.asked) == 6
    assert [each.seed for each in given.asked] == [0, 0, 0, 1, 1, 1]
    assert len({each.task for each in given.asked}) == 2
    assert len({each.deciding for each in given.asked}) == 6, "each draws for itself"
    assert [(each.task, each.seed) for each in episodes] == [
        (each.task.name, each.seed) for each in given.asked
    ]
    kept = list(tmp_path.glob("*.safetensors"))
    assert [path.read_bytes() for path in kept] == [POLICY.to_bytes()]
    assert set(decided_by(kept[0])) < set(given.asked[0].deciding)


def test_a_policy_of_which_half_was_written_is_written_again(pair: Pair, tmp_path: Path) -> None:
    made = rollouts(Given(pair), tmp_path, num=2, per_task=1)
    made(POLICY, 0)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(POLICY.to_bytes()[:100])
    made(POLICY, 1)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [POLICY.to_bytes()]


def test_runs_are_told_the_whole_path_of_the_policy(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be carried out by a process that stands in another folder."""
    monkeypatch.chdir(tmp_path)
    given = Given(pair)
    rollouts(given, Path("policies"), num=2, per_task=1)(POLICY, 0)
    (kept,) = (tmp_path / "policies").iterdir()
    assert all(set(decided_by(kept)) < set(each.deciding) for each in given.asked)


def test_the_same_round_is_the_same_and_the_next_another(pair: Pair, tmp_path: Path) -> None:
    def asked(number: int, **options: int) -> list[Assignment]:
        return rollouts(Given(pair), tmp_path, num=6, per_task=2, **options).assignments(
            Path("p"), number
        )

    assert asked(1) == asked(1)
    assert {each.seed for each in asked(0)} == {0, 1, 2}
    assert {each.seed for each in asked(1)} == {3, 4, 5}
    other = asked(1, seed=1)
    assert not {each.task for each in other} & {each.task for each in asked(1)}


def test_runs_that_fail_are_left_out_until_they_are_too_many(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = rollouts(Given(pair, failing=(1, 2)), tmp_path, num=4, per_task=2)
    assert len(made(POLICY, 0)) == 2
    assert "2 of 4 runs of round 0 cannot be learned from" in caplog.text
    made = rollouts(Given(pair, failing=(0, 1, 2)), tmp_path, num=4, per_task=2)
    with pytest.raises(RolloutsFailed, match="of 4 runs of round 0 only 1"):
        made(POLICY, 0)


def test_a_run_without_a_twin_is_left_out(pair: Pair, tmp_path: Path) -> None:
    alone = Pair(run=pair.run, twin=tmp_path / "nothing")
    with pytest.raises(RolloutsFailed):
        rollouts(Given(alone), tmp_path, num=2, per_task=1)(POLICY, 0)


@pytest.mark.parametrize(
    "options", [{"num": 5, "per_task": 2}, {"num": 0}, {"per_task": 0}, {"seed": -1}]
)
def test_numbers_that_make_no_round_are_refused(
    pair: Pair, tmp_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises(InvalidArgument):
        rollouts(Given(pair), tmp_path, **options)
