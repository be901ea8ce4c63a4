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

BEST = ("tamiyo=periodic", "tamiyo.policy.start=4", "tamiyo.policy.period=100")


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
    assert all("the best schedule is 4/once/all" in line for line in lines)
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
