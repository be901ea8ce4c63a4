"""A window against where its curve was heading, by hand and on curves to which nothing was done."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_lightning.kasmina.trend import forecast, relative_gain
from esper_lightning.leyline import Outcome
from esper_lightning.tamiyo.field_reports.comparison import Comparison, Values, compare, judge


def compared(before: Values, observed: Values, mode: str = "min") -> Comparison:
    comparison = compare(before, observed, mode=mode)
    assert comparison is not None
    return comparison


def outcome(
    before: Values, observed: Values, *, mode: str = "min", rent: float | None = None
) -> Outcome:
    return judge(compared(before, observed, mode), rent=rent)[0]


def noisy(rng: random.Random, length: int, noise: float) -> list[float]:
    """A power law with independent relative noise."""
    exponent = rng.uniform(-0.8, -0.1)
    return [2 * t**exponent * math.exp(rng.gauss(0, noise)) for t in range(1, length + 1)]


# -- figures --------------------------------------------------------------------------------------


def test_a_window_by_hand():
    """Two points: 8 at epoch 1 and 4 at epoch 2 lie on 8 / t, which is 8 / 3 and 2 next."""
    comparison = compared([8.0, 4.0], [None, 1.0])
    assert (comparison.expected, comparison.found) == (pytest.approx(2.0), 1.0)
    assert comparison.delta == pytest.approx(-1.0)
    assert comparison.shift == pytest.approx(0.5)
    assert comparison.noise is None


def test_a_score_is_compared_by_what_is_missing_to_one():
    comparison = compared([0.5, 0.5, 0.5], [None, 0.75], "max")
    assert (comparison.found, comparison.expected, comparison.delta) == (0.75, 0.5, 0.25)
    assert comparison.shift == comparison.gain == 0.5
    above = compared([2.0, 2.0, 2.0], [3.0], "max")
    assert (above.delta, above.shift, above.setback) == (1.0, 0.5, -0.5)


@pytest.mark.parametrize(("mode", "quantile"), [("min", 0.9), ("max", 0.1)])
def test_a_setback_is_told_from_the_curve_that_improves_least(mode, quantile):
    before = [4.0, 3.0, 3.4, 2.0] if mode == "min" else [2.0, 3.0, 2.8, 4.1]
    (least,) = forecast(before, 1, quantile=quantile) or [math.nan]
    comparison = compared(before, [least], mode)
    assert comparison.setback == 0
    assert comparison.shift < 0


def test_noise_by_hand():
    """Logarithms 0, 0.1, 0 at log t = 0, log 2, 2 log 2: a flat line leaves 0.1 of three points."""
    around = math.log(2.5) ** 2 / (2 * math.log(2) ** 2)
    expected = 6.314 * 0.1 * math.sqrt(1 + 1 / 3 + around)
    noise = compared([1.0, math.exp(0.1), None, 1.0], [1.0]).noise
    assert noise == pytest.approx(expected, rel=1e-9)


def test_noise_of_what_is_not_positive_is_relative_to_where_it_was_heading():
    before = [-1.0, -1.1, None, -1.0]
    around = math.log(2.5) ** 2 / (2 * math.log(2) ** 2)
    expected = 6.314 * 0.1 * math.sqrt(1 + 1 / 3 + around)
    assert compared(before, [-1.0]).noise == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("before", "observed"), [([], [1.0]), ([None], [1.0]), ([1.0], []), ([1.0], [None])]
)
def test_without_a_value_on_either_side_there_is_no_comparison(before, observed):
    assert compare(before, observed, mode="min") is None


@given(
    before=st.lists(st.none() | st.floats(-1e100, 1e100), max_size=9),
    observed=st.lists(st.none() | st.floats(-1e100, 1e100), max_size=4),
    mode=st.sampled_from(["min", "max"]),
    rent=st.none() | st.floats(0, 1),
)
def test_any_values_have_an_outcome_with_a_reason(before, observed, mode, rent):
    comparison = compare(before, observed, mode=mode)
    if comparison is not None:
        assert comparison.gain == relative_gain(before, observed, mode=mode)
        result, why = judge(comparison, rent=rent)
        assert why
        if result is Outcome.SUCCESS:
            assert comparison.gain > (rent or 0)
        if result in (Outcome.SUCCESS, Outcome.REGRESSION):
            is_less = (result is Outcome.SUCCESS) == (mode == "min")
            assert comparison.delta < 0 if is_less else comparison.delta > 0


# -- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "better", "worse"), [("min", 0.8, 1.2), ("max", 1.2, 0.8)], ids=["min", "max"]
)
def test_outcomes_of_a_flat_curve(mode, better, worse):
    flat = [1.0] * 6
    assert outcome(flat, [better], mode=mode) is Outcome.SUCCESS
    assert outcome(flat, [worse], mode=mode) is Outcome.REGRESSION
    assert outcome(flat, [1.0005], mode=mode) is Outcome.NEUTRAL
    assert outcome(flat, [0.9995], mode=mode) is Outcome.NEUTRAL


def test_a_curve_that_goes_on_as_it_was_heading_is_no_success():
    law = [3 * t**-0.5 for t in range(1, 10)]
    assert outcome(law[:6], law[6:]) is Outcome.NEUTRAL
    assert outcome(law[:6], [0.8 * value for value in law[6:]]) is Outcome.SUCCESS


def test_to_stop_getting_worse_earns_nothing_and_to_go_on_is_no_regression():
    rising = [float(t) for t in range(1, 10)]
    assert outcome(rising[:6], rising[6:]) is Outcome.NEUTRAL
    result, why = judge(compared(rising[:6], [5.0, 5.0, 5.0]), rent=None)
    assert result is Outcome.NEUTRAL
    assert "37.50% better, +0.00% against what it had reached" in why
    assert outcome(rising[:6], [4.0, 4.0, 4.0]) is Outcome.SUCCESS


def test_a_gain_must_pay_its_rent():
    flat = [1.0] * 6
    assert outcome(flat, [0.95], rent=0.01) is Outcome.SUCCESS
    assert outcome(flat, [0.95], rent=0.1) is Outcome.NEUTRAL
    assert outcome(flat, [0.95], rent=math.nan) is Outcome.NEUTRAL
    assert judge(compared(flat, [0.95]), rent=0.1)[1] == (
        "0.95, it was heading for 1: 5.00% better; noise 0.10%, rent 10.00%"
    )


def test_a_change_within_noise_is_none():
    assert outcome([1.0, 1.3, 0.8, 1.2, 0.9, 1.1], [0.8]) is Outcome.NEUTRAL


def test_two_values_tell_nothing_of_their_noise():
    result, why = judge(compared([1.0, 1.0], [0.1]), rent=None)
    assert result is Outcome.NEUTRAL
    assert "too few values before" in why


def test_nothing_is_a_share_of_zero():
    result, why = judge(compared([0.0, 0.0, 0.0], [1.0]), rent=None)
    assert (result, why) == (
        Outcome.NEUTRAL,
        "1, it was heading for 0, of which nothing can be a share",
    )


# -- error rates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [4, 6, 12])
def test_where_nothing_was_done_few_windows_say_otherwise(length):
    """Nominal is 1 in 20 for a success; with the doubt a regression is rarer."""
    rng = random.Random(length)
    found: Counter[Outcome] = Counter()
    for _ in range(400):
        curve = noisy(rng, length + 3, 0.03)
        found[outcome(curve[:length], curve[length:])] += 1
    assert 0 < found[Outcome.SUCCESS] <= 28
    assert found[Outcome.REGRESSION] <= 12


def test_a_clear_change_is_found():
    rng = random.Random(0)
    better, worse = [], []
    for _ in range(200):
        curve = noisy(rng, 15, 0.01)
        better.append(outcome(curve[:12], [0.85 * value for value in curve[12:]]))
        worse.append(outcome(curve[:12], [1.3 * value for value in curve[12:]]))
    assert better.count(Outcome.SUCCESS) >= 190
    assert worse.count(Outcome.REGRESSION) >= 190
