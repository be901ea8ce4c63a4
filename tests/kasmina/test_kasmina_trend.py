"""Where a curve was heading, worked out by hand, and what a change may claim against it."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.kasmina.trend import damped_trend, relative_gain

losses = st.floats(0.01, 100)
curves = st.lists(losses, min_size=1, max_size=12)
gappy = st.lists(st.one_of(st.none(), losses), min_size=1, max_size=12)
modes = st.sampled_from(["min", "max"])


def test_a_forecast_by_hand() -> None:
    """Level 4 and trend -1; then 3.06 and -0.877 after the second value."""
    assert damped_trend([4.0, 3.0], 3) == pytest.approx(
        [
            3.06 - 0.85 * 0.877,
            3.06 - (0.85 + 0.85**2) * 0.877,
            3.06 - (0.85 + 0.85**2 + 0.85**3) * 0.877,
        ],
        abs=1e-12,
    )


def test_a_forecast_with_other_gains_by_hand() -> None:
    """Level 8 and trend -2; then 6.25 and -1.625; then 5.015625 and -1.2265625."""
    forecast = damped_trend([8.0, 6.0, 5.0], 2, level_gain=0.5, trend_gain=0.5, damping=0.75)
    level, trend = 8.0, -2.0
    level, before = 0.5 * 6.0 + 0.5 * (8.0 - 1.5), level
    trend = 0.5 * (level - before) + 0.5 * -1.5
    assert (level, trend) == (6.25, -1.625)
    level, before = 0.5 * 5.0 + 0.5 * (6.25 - 1.21875), level
    trend = 0.5 * (level - before) + 0.5 * -1.21875
    assert (level, trend) == (5.015625, -1.2265625)
    assert forecast == [level + 0.75 * trend, level + 1.3125 * trend]


@settings(deadline=None)
@given(value=losses, length=st.integers(1, 20), horizon=st.integers(1, 20))
def test_a_constant_stays(value: float, length: int, horizon: int) -> None:
    assert damped_trend([value] * length, horizon) == pytest.approx([value] * horizon, rel=1e-12)


def test_one_value_is_its_own_forecast_and_no_horizon_needs_none() -> None:
    assert damped_trend([3.0], 4) == [3.0] * 4
    assert damped_trend([3.0, 2.0], 0) == []


@settings(deadline=None)
@given(start=losses, slope=st.floats(-5, 5), length=st.integers(2, 20))
def test_without_damping_a_straight_line_goes_on(start: float, slope: float, length: int) -> None:
    line = [start + slope * k for k in range(length + 3)]
    assert damped_trend(line[:length], 3, damping=1.0) == pytest.approx(
        line[length:], rel=1e-6, abs=1e-6
    )


@settings(deadline=None)
@given(curve=curves, horizon=st.integers(2, 10))
def test_a_damped_forecast_flattens(curve: list[float], horizon: int) -> None:
    forecast = damped_trend(curve, horizon)
    steps = [b - a for a, b in itertools.pairwise(forecast)]
    for before, after in itertools.pairwise(steps):
        assert after == pytest.approx(0.85 * before, rel=1e-6, abs=1e-9)


def test_a_gain_by_hand() -> None:
    """Flat at 2: a mean of 1.5 is a quarter better, a mean of 3 is half worse."""
    assert relative_gain([2.0, 2.0], [1.75, 1.25], mode="min") == 0.25
    assert relative_gain([2.0, 2.0], [3.0], mode="min") == -0.5
    assert relative_gain([2.0, 2.0], [3.0], mode="max") == 0.5
    assert relative_gain([2.0, 2.0], [1.75, 1.25], mode="max") == -0.25
    assert relative_gain([-2.0, -2.0], [-1.5], mode="max") == 0.25
    assert relative_gain([-2.0, -2.0], [-2.5], mode="min") == 0.25


def test_a_gain_is_against_where_the_curve_was_heading() -> None:
    first, second = damped_trend([4.0, 3.0], 2)
    expected = (first + second) / 2
    found = relative_gain([4.0, 3.0], [2.0, 1.5], mode="min")
    assert found == pytest.approx((expected - 1.75) / expected, rel=1e-12)
    going_on = relative_gain([4.0, 3.0], [first, second], mode="min")
    assert going_on == pytest.approx(0.0, abs=1e-12)


def test_a_missing_epoch_keeps_its_place_on_the_forecast() -> None:
    """Only the second epoch was seen: it is held against the second value of the forecast."""
    second = damped_trend([4.0, 3.0], 2)[1]
    found = relative_gain([4.0, 3.0], [None, 1.5], mode="min")
    assert found == pytest.approx((second - 1.5) / second, rel=1e-12)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_without_evidence_there_is_no_gain(mode: str) -> None:
    assert relative_gain([], [1.0], mode=mode) is None
    assert relative_gain([None, None], [1.0], mode=mode) is None
    assert relative_gain([1.0], [], mode=mode) is None
    assert relative_gain([1.0], [None, None], mode=mode) is None
    assert relative_gain([0.0, 0.0], [1.0], mode=mode) is None


@settings(deadline=None)
@given(history=curves, observed=st.integers(1, 5))
def test_a_curve_that_was_getting_worse_earns_nothing_by_stopping(
    history: list[float], observed: int
) -> None:
    rising = sorted(history)
    falling = rising[::-1]
    for curve, mode in ((rising, "min"), (falling, "max")):
        gain = relative_gain(curve, [curve[-1]] * observed, mode=mode)
        assert gain is not None
        assert gain <= 1e-12


def test_a_curve_that_got_worse_along_a_line_is_held_against_its_last_value() -> None:
    assert relative_gain([1.0, 2.0, 3.0], [3.0, 3.0], mode="min") == 0.0
    assert relative_gain([1.0, 2.0, 3.0], [1.5], mode="min") == 0.5
    assert relative_gain([3.0, 2.0, 1.0], [1.0, 1.0], mode="max") == 0.0


@settings(deadline=None)
@given(history=gappy, observed=gappy, mode=modes, power=st.integers(-8, 8))
def test_a_gain_does_not_depend_on_the_unit(
    history: list[float | None], observed: list[float | None], mode: str, power: int
) -> None:
    """Scaling by a power of two is exact, and so is what follows from it."""

    def scaled(values: list[float | None]) -> list[float | None]:
        return [None if value is None else value * 2.0**power for value in values]

    gain = relative_gain(history, observed, mode=mode)
    assert relative_gain(scaled(history), scaled(observed), mode=mode) == gain


@settings(deadline=None)
@given(history=gappy, observed=gappy)
def test_more_is_better_is_less_is_better_upside_down(
    history: list[float | None], observed: list[float | None]
) -> None:
    def negated(values: list[float | None]) -> list[float | None]:
        return [None if value is None else -value for value in values]

    gain = relative_gain(history, observed, mode="min")
    assert relative_gain(negated(history), negated(observed), mode="max") == gain


@settings(deadline=None)
@given(history=curves, observed=curves, mode=modes)
def test_a_better_epoch_never_lowers_the_gain(
    history: list[float], observed: list[float], mode: str
) -> None:
    better = [value * (0.9 if mode == "min" else 1.1) for value in observed]
    low = relative_gain(history, observed, mode=mode)
    high = relative_gain(history, better, mode=mode)
    assert low is not None
    assert high is not None
    assert high > low


@settings(deadline=None)
@given(history=curves, observed=curves, mode=modes)
def test_the_forecast_is_never_worse_than_the_last_value(
    history: list[float], observed: list[float], mode: str
) -> None:
    gain = relative_gain(history, observed, mode=mode)
    last = relative_gain(history[-1:], observed, mode=mode)
    assert gain is not None
    assert last is not None
    assert (gain <= 1e-12) or (last > 0)
