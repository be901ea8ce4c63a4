import math

import numpy as np
import pytest
from growing_run import CATALOGUE, GrowingRun, g4, slot, state

from esper_lightning.leyline import Objective, SeedStage
from esper_lightning.tamiyo import GrowthBudget, Heuristic
from esper_lightning.tamiyo.stopping import (
    DRIFT,
    HARM,
    NOISE,
    PER_DOUBLING,
    SPREAD,
    STEP,
    believe,
    rent,
    size,
    worth_planting,
    worth_waiting,
)
from esper_lightning.tamiyo.trial import Trial

TRIAL = Trial(epochs=3, share=0.6, max_regression=0.5, max_dropped=0.1)


def test_a_belief_is_the_posterior_of_a_regression_through_the_origin():
    """Against a grid: prior times likelihood, summed."""
    trials = [(3.0, -0.2), (1.5, 0.3), (0.4, 0.0)]
    grid = np.linspace(-1, 1, 20_001)
    log = -0.5 * ((grid - PER_DOUBLING) / SPREAD) ** 2
    for extent, gain in trials:
        log -= 0.5 * ((gain - grid * extent) / NOISE) ** 2
    weight = np.exp(log - log.max())
    mean = np.average(grid, weights=weight)
    found = believe(trials)
    assert found.mean == pytest.approx(mean, abs=1e-6)
    assert found.variance == pytest.approx(np.average((grid - mean) ** 2, weights=weight), rel=1e-4)


@pytest.mark.parametrize("extent", [0.3, 2.0])
@pytest.mark.parametrize("owed", [0.001, 0.2])
def test_the_worth_of_a_cohort_is_that_of_the_better_decision_after_its_trial(extent, owed):
    """Against trials drawn at random, each followed by the better of keeping and culling."""
    belief = believe([(2.0, -0.1)])
    draw = np.random.default_rng(1)
    real = draw.normal(belief.mean, math.sqrt(belief.variance), 400_000) * extent
    told = real + draw.normal(0, NOISE, real.size)
    prior = belief.variance * extent**2
    after = belief.mean * extent + (told - belief.mean * extent) * prior / (prior + NOISE**2)
    kept = after - owed > -HARM - owed * 0.5
    outcome = np.where(kept, real - owed, -HARM - owed * 0.5).mean()
    found = worth_planting(belief, extent, owed=owed, share=0.5)
    assert found == pytest.approx(outcome, abs=5e-4)


def test_a_cohort_without_size_is_worth_nothing_and_owes_its_rent():
    assert worth_planting(believe([]), 0.0, owed=0.0, share=1.0) == 0.0
    assert worth_planting(believe([]), 0.0, owed=0.01, share=1.0) == pytest.approx(-0.01)


def test_size_counts_doublings_and_what_is_left_of_the_run():
    assert size(before=100, after=800, left=None) == 3.0
    assert size(before=100, after=800, left=9) < 3.0
    assert size(before=100, after=800, left=4) < size(before=100, after=800, left=9)
    assert size(before=100, after=800, left=0) == 0.0
    assert size(before=0, after=800, left=9) == size(before=800, after=800, left=9) == 0.0


def test_rent_is_that_of_the_gate():
    assert rent(parameters=8.417, flops=8.122) == pytest.approx(0.0331, abs=1e-4)
    assert rent(parameters=1.0, flops=None) == 0.002


def test_waiting_is_worth_less_the_further_the_gain_is_behind_and_the_more_it_costs():
    near = {"owed": 0.03, "epochs": 4, "lifetime": 10}
    assert worth_waiting(STEP, **near)
    assert not worth_waiting(6 * STEP, **near)
    assert not worth_waiting(STEP, **(near | {"owed": 3.0}))
    assert not worth_waiting(STEP, **(near | {"epochs": 0}))


def test_what_the_next_epoch_cannot_turn_several_can():
    far = {"owed": 0.005, "lifetime": 10}
    assert not worth_waiting(4 * STEP, epochs=1, **far)
    assert worth_waiting(4 * STEP, epochs=12, **far)


@pytest.mark.parametrize(("shortfall", "epochs"), [(0.2, 1), (0.7, 2), (0.9, 3), (1.5, 6)])
def test_an_epoch_is_worth_the_chance_that_it_turns_the_verdict(shortfall, epochs):
    """Against estimates that wander at random."""
    steps = np.random.default_rng(2).normal(DRIFT, STEP, (200_000, epochs)).cumsum(axis=1)
    chances = (steps > shortfall).mean(axis=0)
    price = max(HARM * chance / number for number, chance in enumerate(chances, start=1))
    options = {"epochs": epochs, "lifetime": 10}
    assert worth_waiting(shortfall, owed=10 * price * 0.9, **options)
    assert not worth_waiting(shortfall, owed=10 * price * 1.1, **options)


def judged(*, gain: float | None, age: int, max_epochs: int | None = 40) -> list[str]:
    seed = slot(
        "a", SeedStage.PROBATIONARY, gate=g4(False), gain=gain, rent=0.03, cohort=9, age=age
    )
    found = TRIAL.judge([seed], regression=None, state=state(seed, max_epochs=max_epochs))
    return [choice.reason for choice in found]


def test_a_hopeless_trial_ends_before_its_time():
    assert judged(gain=-5.0, age=2) == []  # what was planted disturbs at first
    assert "no more are worth their rent" in judged(gain=-5.0, age=3)[0]
    assert judged(gain=-0.9, age=3) == []
    assert "no more are worth their rent" in judged(gain=-0.9, age=17)[0]
    assert judged(gain=0.0, age=17) == []
    assert "no gain worth its rent in 18 epochs" in judged(gain=0.0, age=18)[0]


@pytest.mark.parametrize("gain", [None, math.nan, math.inf, -math.inf])
def test_a_gain_that_is_no_number_ends_no_trial_early(gain):
    assert judged(gain=gain, age=3) == []


def test_without_an_end_of_the_run_a_trial_is_as_long_as_its_rule_says():
    assert judged(gain=-0.9, age=2, max_epochs=None) == []
    assert judged(gain=0.02, age=3, max_epochs=None)


def growing(**options) -> Heuristic:
    return Heuristic(**({"catalogue": CATALOGUE, "budget": GrowthBudget()} | options))


def test_a_run_whose_cohorts_fail_stops_growing():
    run = GrowingRun(gain=lambda _: -0.4, max_epochs=200, epochs=200).run(growing())
    planted = sorted({epoch for epoch, kind, _ in run.kinds() if kind == "GERMINATE"})
    assert 1 <= len(planted) <= 4
    reason = run.log[-20][1][0].reason
    assert f"after {len(planted)} cohorts another is expected to be worth -" in reason


def test_a_run_whose_cohorts_pay_goes_on_until_the_budget_is_spent():
    run = GrowingRun(max_epochs=200, epochs=200).run(growing(spend=0.4))
    planted = sorted({epoch for epoch, kind, _ in run.kinds() if kind == "GERMINATE"})
    assert len(planted) >= 4
    reasons = [choices[0].reason for _, choices in run.log]
    assert not any("is expected to be worth" in reason for reason in reasons)
    assert run.at(199).num_parameters > 4000


def test_what_was_tried_is_remembered_with_its_last_finite_gain():
    deciding = growing()
    live = slot("a", SeedStage.PROBATIONARY, cohort=3, num_parameters=1000)
    for epoch, gain in enumerate([None, 0.3, math.nan, -7.0], start=4):
        seed = slot("a", live.stage, cohort=3, num_parameters=1000, gain=gain, rent=0.01)
        deciding.decide(state(seed, epoch=epoch, objective=Objective(name="val/loss", value=1.0)))
        (tried,) = deciding.state_dict()["tried"]
        assert tried["gain"] == {4: None, 5: 0.3, 6: 0.3, 7: -1.0}[epoch]
        assert tried["size"] == size(before=1000, after=2000, left=20)


@pytest.mark.parametrize("epochs", [65, 10_000, 2**62])
def test_a_run_of_any_length_is_judged_at_once(epochs: int) -> None:
    assert worth_waiting(0.5, owed=0.01, epochs=epochs, lifetime=epochs)
    assert not worth_waiting(0.5, owed=1e3 * epochs, epochs=epochs, lifetime=epochs)
