"""Objectives and their error budgets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scraped_series import Course, by_the_book, series

from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.alerts import OBJECTIVES, ErrorBudget, ServiceObjective, run_budgets
from esper_lightning.nissa.alerts.objectives import BURNINGS, Burning
from esper_lightning.nissa.metrics import Series, names

LATENCY = OBJECTIVES[0]


def test_the_budget_of_a_run_is_that_of_all_its_processes() -> None:
    samples = {
        Series("tolaria_steps_total", (("rank", "0"), ("run", "r1"))): 600.0,
        Series("tolaria_steps_total", (("rank", "1"), ("run", "r1"))): 400.0,
        Series("tolaria_steps_total", (("rank", "0"), ("run", "r2"))): 9.0,
        Series("tolaria_slow_steps_total", (("rank", "1"), ("run", "r1"))): 4.0,
    }
    budgets = {each.objective: each for each in run_budgets(samples, "r1")}
    assert set(budgets) == {each.name for each in OBJECTIVES}
    latency = budgets["step_latency"]
    assert (latency.total, latency.bad) == (1000.0, 4.0)
    assert latency.burn_rate == pytest.approx(0.4)
    assert latency.remaining == pytest.approx(0.6)
    assert budgets["delivery"].burn_rate is None
    assert budgets["delivery"].remaining == 1.0


@given(st.integers(1, 10**9), st.floats(0, 1), st.floats(1e-4, 0.5))
def test_at_rate_one_a_budget_is_spent_exactly(total: int, share: float, allowed: float) -> None:
    budget = ErrorBudget(objective="x", total=total, bad=share * total, allowed=allowed)
    assert budget.burn_rate == pytest.approx(share / allowed)
    assert (budget.remaining < 0) == (budget.burn_rate > 1)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 1.5])
def test_a_target_leaves_a_budget(target: float) -> None:
    with pytest.raises(InvalidArgument, match="between 0 and 1"):
        ServiceObjective(name="x", text="x", total=names.STEPS, bad=names.SLOW_STEPS, target=target)


def burning(share: float, ticks: int) -> set[str]:
    course: Course = {
        series(names.STEPS): [100.0 * tick for tick in range(ticks)],
        series(names.SLOW_STEPS): [share * 100.0 * tick for tick in range(ticks)],
    }
    told = by_the_book(course, [ticks - 1])[ticks - 1]
    return {name for name, state, _ in told if state == "firing" and name.startswith("slo_")}


@pytest.mark.parametrize("burning_", BURNINGS, ids=[each.name for each in BURNINGS])
def test_a_budget_burns_above_its_rate_only(burning_: Burning) -> None:
    name = f"slo_step_latency_burns_{burning_.name}"
    limit = burning_.rate * LATENCY.budget
    assert name in burning(1.05 * limit, 300)
    assert name not in burning(0.95 * limit, 300)


def test_a_burn_that_is_over_is_no_alert() -> None:
    slow = [min(tick, 200) * 50.0 for tick in range(240)]
    course: Course = {
        series(names.STEPS): [100.0 * tick for tick in range(240)],
        series(names.SLOW_STEPS): [*slow],
    }
    told = by_the_book(course, [199, 239])
    fast = "slo_step_latency_burns_fast"
    assert fast in {name for name, _, _ in told[199]}
    assert fast not in {name for name, _, _ in told[239]}  # the short window is clean again


def test_a_run_that_spent_its_budget_is_told_once_there_were_enough_steps() -> None:
    def told(steps: float) -> set[str]:
        course: Course = {
            series(names.STEPS): [steps],
            series(names.SLOW_STEPS): [0.02 * steps],
        }
        return {name for name, _, _ in by_the_book(course, [0])[0]}

    assert "slo_step_latency_run_budget_spent" in told(100.0)
    assert "slo_step_latency_run_budget_spent" not in told(99.0)
