"""The contest of policies: regret against schedules that were chosen on other seeds."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from esper_lightning.evidence.rollouts import contest
from esper_lightning.evidence.rollouts.families import HELD_OUT, TRAINING
from esper_lightning.evidence.rollouts.schedules import schedules
from esper_lightning.leyline import RunSummary
from esper_lightning.simic.rollouts import Assignment, Pair

BEST = ("tamiyo.policy.min_epoch=4", "tamiyo.policy.max_live=4", "+tamiyo.policy.spend=1.0")


def summary(loss: float, *, parameters: int = 100, flops: float = 1e6) -> RunSummary:
    return RunSummary(
        run_id="r",
        outcome="finished",
        seed=0,
        host="CNN",
        policy="p",
        incubation="direct",
        epochs=10,
        steps=100,
        validation={"val/loss": loss},
        test={"test/loss": 0.0},
        host_parameters=100,
        parameters=parameters,
        host_flops_per_sample=1.0,
        flops_per_sample=1.0,
        host_training_flops=1e6,
        training_flops=flops,
        wall_s=1.0,
        grown=(),
        culled=(),
        versions={},
    )


RUNS = (
    ("one", "a", 0.0),
    ("two", "a", 1.0),
    ("one", "b", 0.5),
    ("two", "b", 0.0),
    ("other", "a", 9.0),
)


def worth(who: str, task: str, utility: float, *, seed: int = 0) -> contest.Worth:
    return contest.Worth(who=who, task=task, seed=seed, utility=utility, parameters=1, flops=1)


class Written:
    """Carries nothing out: a run's loss is told by who decides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds: set[int] = set()

    def __call__(self, assignments: Sequence[Assignment]) -> list[Pair | None]:
        self.seeds |= {each.seed for each in assignments}
        return [self._pair(number, each) for number, each in enumerate(assignments)]

    def _pair(self, number: int, each: Assignment) -> Pair:
        name = " ".join(each.deciding)
        loss = 0.8
        if set(BEST) <= set(each.deciding):
            loss = 0.5
        elif "tamiyo=never" in name:
            loss = 1.0
        elif "learned" in name:
            loss = 0.55
        elif "heuristic" in name:
            loss = 0.65
        loss += 0.001 * (each.seed % 7) * ("never" not in name)
        folders = [self.folder / f"{len(self.seeds)}-{number}-{part}" for part in ("run", "twin")]
        for folder, told in zip(folders, (summary(loss), summary(1.0)), strict=True):
            folder.mkdir()
            (folder / "summary.json").write_bytes(msgspec.json.encode(told))
        return Pair(run=folders[0], twin=folders[1])


def test_regret_is_told_against_the_best_schedule_of_other_seeds(tmp_path: Path) -> None:
    written, lines = Written(tmp_path), []
    found = contest.contest(
        written,
        {"learned": tmp_path / "policy.safetensors"},
        num_tasks=2,
        num_seeds=5,
        num_other_seeds=1,
        tell=lines.append,
    )
    assert len(lines) == 2
    assert all("the best schedule is after 4, 4 at once, 100%" in line for line in lines)
    told = {each.who: each for each in contest.results(found)}
    assert set(told) == {contest.BEST, "learned", *contest.RIVALS}
    assert {each.num for each in told.values()} == {10}
    assert told["never"].utility.value == 0
    assert told[contest.BEST].regret.value == 0
    assert 0 < told["learned"].regret.value < told["heuristic"].regret.value / 2
    assert told["learned"].over_heuristic.low > 0
    assert told["heuristic"].improvement.value == 0.5
    assert contest.halved(found, "learned").low > 0
    assert contest.halved(found, "heuristic").high < 0
    assert contest.render(list(told.values())).splitlines()[2].startswith("| best schedule")
    others = {seed for seed in written.seeds if seed >= contest.FIRST_OTHER_SEED}
    assert len(others) == 1
    assert len(written.seeds - others) == 5


def test_a_failed_run_is_told(tmp_path: Path) -> None:
    def fails(assignments: Sequence[Assignment]) -> list[Pair | None]:
        return [None] * len(assignments)

    with pytest.raises(contest.ContestFailed, match="20 of 20 runs failed"):
        contest.contest(fails, {}, num_tasks=1, num_seeds=1, num_other_seeds=1, tell=print)


def test_families_have_nothing_in_common_but_the_digits() -> None:
    for name in ("hosts", "noises", "rates", "examples", "classes", "epochs"):
        assert not set(getattr(TRAINING, name)) & set(getattr(HELD_OUT, name)), name
    for family in (TRAINING, HELD_OUT):
        tasks = [family.task(number) for number in range(40)]
        assert tasks == [family.task(number) for number in range(40)]
        assert len({task.name for task in tasks}) > 30
    assert not {TRAINING.task(n).options for n in range(99)} & {
        HELD_OUT.task(n).options for n in range(99)
    }


def test_there_are_twenty_schedules() -> None:
    assert len(schedules()) == len(set(schedules().values())) == 20
    assert json.dumps(sorted(schedules()))


def test_policies_of_several_seeds_count_as_their_mean() -> None:
    found = [worth(who, task, value) for who, task, value in RUNS]
    pooled = contest.together(found, ["one", "two"], who="both")
    assert [(each.task, each.utility) for each in pooled] == [("a", 0.5), ("b", 0.25)]
    assert {each.who for each in pooled} == {"both"}


def test_intervals_are_over_tasks() -> None:
    """Ten runs of one task are one witness."""
    found = [
        worth(who, task, value, seed=seed)
        for seed in range(10)
        for who, task, value in (
            *((contest.BEST, task, 1.0) for task in "ab"),
            *((contest.HEURISTIC, task, 0.0) for task in "ab"),
            ("learned", "a", 0.9),
            ("learned", "b", 0.1),
        )
    ]
    (told,) = [each for each in contest.results(found) if each.who == "learned"]
    assert told.num == 20
    assert told.regret.value == pytest.approx(0.5)
    assert told.regret.low == pytest.approx(0.1)
    assert told.regret.high == pytest.approx(0.9)
    halved = contest.halved(found, "learned")
    assert halved.value == pytest.approx(0.0)
    assert halved.low < 0 < halved.high
