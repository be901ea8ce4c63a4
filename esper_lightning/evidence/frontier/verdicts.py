"""What gate G4 would have said of cohorts that stayed whatever it said.

The arm ``inserted`` plants at half of the run and keeps everything, so that the end of each of its
runs tells what its cohort was worth: points of test accuracy above the same run without seeds. What
the gate would have made of the same curves, with another doubt or after other epochs, is computed
afterwards.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from esper_lightning.evidence.frontier.rows import Row
from esper_lightning.evidence.frontier.twins import TWIN, WINDOW
from esper_lightning.kasmina.trend import relative_gain

ARM = "inserted"
AGES = (3, 4, 6)
"""Epochs after planting at which the gate is asked."""
DOUBTS = (0.0, 0.25, 0.4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Of all cohorts of a task, asked after the same number of epochs with the same doubt.

    Attributes:
        age: epochs since planting.
        doubt: of the gate, see :class:`~esper_lightning.kasmina.GateRules`.
        cohorts: how many there were.
        error: mean of the estimated relative gain minus that over the twin in the same epochs.
        spread: standard deviation of it.
        kept: share of the cohorts that the gate would have kept.
        worth_kept: points of test accuracy by which those ended above their twins, on average;
            None where there were none.
        worth_culled: likewise of the others.
    """

    age: int
    doubt: float
    cohorts: int
    error: float
    spread: float
    kept: float
    worth_kept: float | None
    worth_culled: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cohort:
    """The objective until planting, after it, and of the twin in the same epochs."""

    before: Sequence[float | None]
    after: Sequence[float | None]
    twin: Sequence[float | None]
    rent: float
    worth: float


def verdicts(rows: Iterable[Row], *, task: str) -> list[Verdict]:
    """By age and doubt; none where the arm or its twins were not run."""
    cohorts = list(_cohorts(rows, task))
    asked = ((age, doubt) for age in AGES for doubt in DOUBTS)
    found = (_verdict(cohorts, age=age, doubt=doubt) for age, doubt in asked)
    return [verdict for verdict in found if verdict is not None]


def _cohorts(rows: Iterable[Row], task: str) -> Iterator[_Cohort]:
    by_arm: dict[str, dict[int, Row]] = {ARM: {}, TWIN: {}}
    for row in rows:
        if row.task == task and row.arm in by_arm:
            by_arm[row.arm][row.seed] = row
    for seed, row in by_arm[ARM].items():
        twin = by_arm[TWIN].get(seed)
        planted = min((each.planted for each in row.judgements), default=None)
        if twin is None or planted is None:
            continue
        curve = [point.objective for point in row.curve]
        yield _Cohort(
            before=curve[: planted + 1],
            after=curve[planted + 1 :],
            twin=[point.objective for point in twin.curve][planted + 1 :],
            rent=row.judgements[0].rent,
            worth=100 * (row.summary.test["test/acc"] - twin.summary.test["test/acc"]),
        )


def _verdict(cohorts: Sequence[_Cohort], *, age: int, doubt: float) -> Verdict | None:
    errors: list[float] = []
    kept: list[float] = []
    culled: list[float] = []
    for cohort in cohorts:
        estimate = relative_gain(cohort.before, _seen(cohort.after, age), mode="min", doubt=doubt)
        gain = _over_twin(cohort, age)
        if estimate is None or gain is None:
            continue
        errors.append(estimate - gain)
        (kept if estimate >= cohort.rent else culled).append(cohort.worth)
    if not errors:
        return None
    return Verdict(
        age=age,
        doubt=doubt,
        cohorts=len(errors),
        error=fmean(errors),
        spread=pstdev(errors),
        kept=len(kept) / len(errors),
        worth_kept=fmean(kept) if kept else None,
        worth_culled=fmean(culled) if culled else None,
    )


def _seen(after: Sequence[float | None], age: int) -> list[float | None]:
    """What the gate looks at: the last epochs of that age."""
    if len(after) < age:
        return []
    return [None] * (age - WINDOW) + list(after[age - WINDOW : age])


def _over_twin(cohort: _Cohort, age: int) -> float | None:
    here, there = (
        [value for value in curve[age - WINDOW : age] if value is not None]
        for curve in (cohort.after, cohort.twin)
    )
    if not here or not there:
        return None
    return 1 - fmean(here) / fmean(there)
