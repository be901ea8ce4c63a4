import math

import pytest
from growing_run import g4, slot, state

from esper_lightning.leyline import (
    Comparison,
    Gate,
    GateResult,
    InvalidArgument,
    Measurement,
    SeedStage,
    SeedState,
)
from esper_lightning.tamiyo.trial import Trial, cohorts, has_passed, is_last, settle

RULES = {"epochs": 3, "share": 0.5, "max_regression": 0.5, "max_dropped": 0.1}
TRIAL = Trial(**RULES)


def seed(name: str = "a", *, passed: bool | None = None, **values) -> SeedState:
    if passed is not None:
        values = {"gate": g4(passed), "gain": 0.1 * passed, "rent": 0.01} | values
    return slot(name, SeedStage.PROBATIONARY, **values)


def judged(
    *cohort: SeedState, regression: float | None = None, max_epochs: int | None = None
) -> list[tuple[str, str]]:
    now = state(epoch=12, max_epochs=max_epochs, steps_per_epoch=10)
    choices = TRIAL.judge(cohort, regression=regression, state=now)
    assert all(choice.reason for choice in choices)
    return [(choice.kind.name, choice.slot) for choice in choices]


def test_a_cohort_is_fossilised_together():
    assert judged(seed("a", passed=True), seed("b", passed=True)) == [
        ("FOSSILIZE", "a"),
        ("FOSSILIZE", "b"),
    ]
    assert judged(seed("a", passed=True), seed("b", passed=False)) == []
    assert judged(seed("a", passed=True), slot("b", SeedStage.BLENDING)) == []


def test_at_the_end_of_the_trial_each_gets_its_own_verdict():
    assert judged(seed("a", passed=True, age=3), seed("b", passed=False, age=3)) == [
        ("FOSSILIZE", "a"),
        ("CULL", "b"),
    ]
    assert judged(seed(passed=False, age=2)) == []


@pytest.mark.parametrize(
    ("max_epochs", "age", "ends"), [(24, 6, False), (24, 7, True), (12, 2, False), (12, 3, True)]
)
def test_a_trial_lasts_its_share_of_what_was_left_at_planting(max_epochs, age, ends):
    cohort = seed(passed=False, age=age, cohort=9)  # 14 epochs are left of 24, 2 of 12
    assert judged(cohort, max_epochs=max_epochs) == ([("CULL", "a")] if ends else [])


def test_a_gain_that_was_not_measured_is_no_reason_to_cull():
    assert judged(seed(age=9)) == []
    assert judged(seed(age=9, gain=0.0)) == []
    assert judged(seed(age=9, gain=math.nan, rent=0.1)) == [("CULL", "a")]


def test_a_gain_that_pays_is_kept_waiting_where_another_measurement_fails():
    assert judged(seed(age=9, gain=0.2, rent=0.1, gate=g4(False))) == []


def test_a_gate_that_is_not_g4_does_not_count():
    measured = Measurement(name="x", value=1.0, comparison=Comparison.AT_LEAST, threshold=0.0)
    g3 = GateResult(gate=Gate.G3_INTERFACE, measurements=(measured,))
    assert g3.passed
    assert not has_passed(seed(gate=g3))
    assert has_passed(seed(passed=True))
    assert not has_passed(seed(passed=True, paused=True))


@pytest.mark.parametrize("regression", [0.6, math.inf, math.nan])
def test_a_bad_regression_ends_the_trial_at_once(regression):
    cohort = seed("a", passed=True, age=0), seed("b", age=0), slot("c", SeedStage.TRAINING)
    assert judged(*cohort, regression=regression) == [("CULL", "a"), ("CULL", "b")]


@pytest.mark.parametrize("regression", [None, -2.0, 0.5])
def test_a_bearable_regression_does_not(regression):
    assert judged(seed("a", passed=True), regression=regression) == [("FOSSILIZE", "a")]


def test_dropped_gradients_end_the_trial_of_their_seed_alone():
    assert judged(seed("a", dropped_gradients=2), seed("b", dropped_gradients=1)) == [("CULL", "a")]
    assert judged(seed("a", dropped_gradients=None)) == []


def test_a_paused_seed_is_left_alone():
    assert judged(seed("a", passed=False, age=9, paused=True), regression=9.0) == []


def test_the_last_boundary_leaves_nothing_alive():
    slots = [
        slot("dormant"),
        slot("training", SeedStage.TRAINING),
        seed("good", passed=True),
        seed("bad", passed=False),
        seed("paused", passed=True, paused=True),
        slot("culled", SeedStage.CULLED),
    ]
    choices = settle(slots)
    assert [(choice.kind.name, choice.slot) for choice in choices] == [
        ("CULL", "training"),
        ("FOSSILIZE", "good"),
        ("CULL", "bad"),
        ("CULL", "paused"),
    ]


def test_cohorts_are_told_apart_by_their_planting():
    seeds = [seed("a", cohort=3), slot("b"), seed("c", cohort=5), slot("d", SeedStage.TRAINING)]
    assert [[each.slot for each in group] for group in cohorts(seeds)] == [["a", "d"], ["c"]]


def test_an_open_ended_run_has_no_last_boundary():
    assert is_last(state(epoch=23))
    assert not is_last(state(epoch=22))
    assert not is_last(state(epoch=10**6, max_epochs=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "trial must be a whole number of at least 1, got 0"),
        ({"max_regression": 0.0}, "above 0, got 0"),
        ({"max_regression": math.nan}, "above 0, got nan"),
        ({"share": 1.5}, "trial_share is a share of the epochs left, 0 to 1, got 1.5"),
        ({"max_dropped": 1.5}, "a share, 0 to 1, got 1.5"),
    ],
)
def test_rules_that_cannot_be_met_are_refused(options, message):
    with pytest.raises(InvalidArgument, match=message):
        Trial(**(RULES | options))
