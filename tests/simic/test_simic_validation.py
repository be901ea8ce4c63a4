"""Which policy is better: intervals over tasks, and a rule that lets no worse one pass."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import QUICK, WORTH, measured

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.validation import Measured, Resampling, Rule, difference
from esper_lightning.simic.validation.comparison import chance
from esper_lightning.simic.validation.rule import differences, shortfalls, unfit

FEW = Resampling(num=999)


def pairs(gaps: dict[str, list[float]]) -> list[Measured]:
    return [
        Measured(task=task, seed=seed, utilities={"a": 0.5 + gap, "b": 0.5})
        for task, each in gaps.items()
        for seed, gap in enumerate(each)
    ]


def passes(**changes: float) -> float:
    """Share of a hundred contests that a candidate passes."""
    worth = WORTH | changes
    told = 0
    for seed in range(100):
        found = measured(worth, seed=seed)
        told += not shortfalls(differences(found, QUICK), QUICK)
    return told / 100


def test_numbers_worked_out_by_hand() -> None:
    told = difference(
        pairs({"x": [0.25, 0.75], "y": [-0.5, 0.0], "z": [0.5, 0.5]}), "a", "b", resampling=FEW
    )
    assert told.mean.value == pytest.approx((0.5 - 0.25 + 0.5) / 3)
    assert told.improvement.value == pytest.approx((1.0 + 0.25 + 1.0) / 3)
    assert (told.pairs, told.tasks) == (6, 3)
    # Of eight ways to choose signs, three have a mean as large: +++, +-+ and nothing else but ties.
    values = np.asarray([0.5, -0.25, 0.5])
    ways = [
        np.mean(values * signs)
        for signs in np.asarray(np.meshgrid(*[[1, -1]] * 3)).reshape(3, -1).T
    ]
    assert told.chance == np.mean(np.asarray(ways) >= values.mean() - 1e-12)


def test_tasks_are_what_is_drawn_anew_not_runs() -> None:
    """More runs of the same tasks say nothing about others."""
    gaps = {str(task): [0.1 * (-1) ** task + 0.05] for task in range(8)}
    once = difference(pairs(gaps), "a", "b", resampling=FEW)
    often = difference(pairs({t: each * 50 for t, each in gaps.items()}), "a", "b", resampling=FEW)
    for one, other in zip(
        msgspec.structs.astuple(once.mean), msgspec.structs.astuple(often.mean), strict=True
    ):
        assert one == pytest.approx(other)
    assert often.pairs == 50 * once.pairs


def test_an_unequal_number_of_seeds_weighs_each_task_alike() -> None:
    told = difference(pairs({"x": [1.0], "y": [0.0] * 9}), "a", "b", resampling=FEW)
    assert told.mean.value == pytest.approx(0.5)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=2, max_size=12),
    st.integers(0, 3),
)
def test_what_one_gains_the_other_loses(gaps: list[float], seed: int) -> None:
    found = pairs({str(task): [gap] for task, gap in enumerate(gaps)})
    how = Resampling(num=199, seed=seed)
    told, turned = (difference(found, *names, resampling=how) for names in ("ab", "ba"))
    assert told.mean.value == pytest.approx(-turned.mean.value, abs=1e-12)
    assert told.improvement.value == pytest.approx(1 - turned.improvement.value)
    assert told == difference(found, "a", "b", resampling=how)
    assert 0 < told.chance <= 1
    if told.mean.low is not None:
        assert told.mean.high is not None
        assert told.mean.low <= told.mean.high


def test_the_chance_of_signs_is_exact_for_few_and_drawn_for_many() -> None:
    assert chance(np.ones(8), resampling=Resampling()) == 0.5**8
    assert chance(np.zeros(8), resampling=Resampling()) == 1
    assert chance(np.ones(40), resampling=FEW) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("utilities", "why"),
    [({"a": 0.1, "b": None}, "utility of b on x"), ({"a": math.nan, "b": 0.0}, "utility of a")],
)
def test_what_is_missing_is_not_compared(utilities: dict[str, float | None], why: str) -> None:
    found = [*pairs({"y": [0.1]}), Measured(task="x", seed=0, utilities=utilities)]
    with pytest.raises(InvalidArgument, match=why):
        difference(found, "a", "b")


def test_one_task_says_nothing_of_others() -> None:
    with pytest.raises(InvalidArgument, match="at least 2 tasks, got 1"):
        difference(pairs({"x": [0.1, 0.2]}), "a", "b")


@pytest.mark.parametrize("worse", [0.05, 0.02])
def test_a_worse_policy_is_refused(worse: float) -> None:
    """With eight tasks that differ by 0.03 and four seeds by 0.05: at least 95 of 100."""
    assert passes(candidate=WORTH["current"] - worse) <= 0.05


def test_a_policy_that_is_as_good_is_hardly_ever_an_improvement() -> None:
    assert passes(candidate=WORTH["current"]) <= 0.08


def test_a_policy_that_is_clearly_better_passes() -> None:
    assert passes(candidate=WORTH["current"] + 0.1) >= 0.9


@pytest.mark.parametrize("rival", ["random", "never"])
def test_it_must_beat_random_and_never_too(rival: str) -> None:
    random = 0.0 if rival == "random" else -0.2
    found = measured(WORTH | {"current": -0.5, "candidate": 0.0, "random": random})
    told = shortfalls(differences(found, QUICK), QUICK)
    assert told
    assert all("better than current" not in each for each in told)
    assert any(f"better than {rival}" in each for each in told)


def test_the_same_decisions_are_no_improvement_whatever_the_margin() -> None:
    found = [
        msgspec.structs.replace(
            each, utilities=each.utilities | {"candidate": each.utilities["current"]}
        )
        for each in measured()
    ]
    for margin in (0.0, 0.5):
        rule = msgspec.structs.replace(QUICK, margin=margin)
        (told,) = shortfalls(differences(found, rule), rule)
        assert told.startswith("it is not better than current on average")


def test_a_margin_lets_pass_what_is_a_little_better_and_may_be_a_little_worse() -> None:
    found = measured(WORTH | {"candidate": 0.23}, seed=3)
    lenient = msgspec.structs.replace(QUICK, margin=0.1)
    told = differences(found, QUICK)
    assert told[0].mean.value > 0
    assert "may be chance" in shortfalls(told, QUICK)[0]
    assert shortfalls(told, lenient) == []


@pytest.mark.parametrize(
    ("tasks", "seeds", "why"),
    [(7, 4, "7 tasks are too few; the rule asks for 8"), (8, 2, "8 tasks have fewer than 3")],
)
def test_too_few_pairs_are_refused(tasks: int, seeds: int, why: str) -> None:
    found = measured(tasks=tasks, seeds=seeds)
    assert differences(found, QUICK) == ()
    (told,) = unfit(found, QUICK)
    assert why in told


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
@pytest.mark.parametrize("who", ["candidate", "never", "heuristic"])
def test_a_missing_utility_is_refused_with_who_and_where(who: str, value: float | None) -> None:
    first, *rest = measured()
    broken = msgspec.structs.replace(first, utilities=first.utilities | {who: value})
    (told,) = unfit([broken, *rest], QUICK)
    assert f"1 of 32 utilities of {who} are missing or not finite, the first on task 0" in told


def test_no_rival_no_verdict_and_no_seed_twice() -> None:
    found = measured({"candidate": 0.3, "current": 0.2})
    assert "32 of 32 utilities of random are missing" in unfit(found, QUICK)[0]
    assert "a seed stands twice in task 0" in unfit([*measured(), measured()[0]], QUICK)
    assert unfit([], QUICK)[0] == "0 tasks are too few; the rule asks for 8"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"margin": -0.1}, "margin must be at least 0"),
        ({"margin": math.nan}, "margin must be at least 0"),
        ({"min_tasks": 5}, "raise min_tasks"),
        ({"min_seeds": 0}, "min_seeds must be a whole number"),
        ({"better_than": "random"}, "better_than must be a list"),
    ],
)
def test_rules_that_are_none(options: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        Rule(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"confidence": 1.0}, {"num": 10}, {"seed": -1}])
def test_resampling_that_is_none(options: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        Resampling(**options)  # type: ignore[arg-type]
