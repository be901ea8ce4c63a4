"""Where a curve was heading, worked out by hand, and what a change may claim against it."""

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from esper_lightning.kasmina.trend import ANCHOR, WINDOW, forecast, relative_gain

Curve = list[float | None]

losses = st.floats(0.01, 100)
curves = st.lists(losses, min_size=1, max_size=12)
gappy = st.lists(st.one_of(st.none(), losses), min_size=1, max_size=12)
modes = st.sampled_from(["min", "max"])


def power_law(length: int, *, factor: float = 3.0, exponent: float = -0.5) -> list[float]:
    return [factor * t**exponent for t in range(1, length + 1)]


# -- the forecast -----------------------------------------------------------------------------


def test_a_forecast_by_hand() -> None:
    """Two points: 8 at epoch 1 and 4 at epoch 2 lie on 8 / t."""
    assert forecast([8.0, 4.0], 3) == pytest.approx([8 / 3, 2.0, 8 / 5], rel=1e-12)
    assert forecast([None, 4.0, None, 2.0], 1) == pytest.approx([8 / 5], rel=1e-12)


def test_a_forecast_of_what_is_not_positive_by_hand() -> None:
    """Two points: 1 at epoch 1 and 1 - 2 log 2 at epoch 2 lie on 1 - 2 log t."""
    history: Curve = [1.0, 1 - 2 * math.log(2)]
    assert forecast(history, 2) == pytest.approx(
        [1 - 2 * math.log(3), 1 - 2 * math.log(4)], rel=1e-12
    )


def test_the_exponent_is_the_median_of_all_slopes_and_the_factor_that_of_the_rest() -> None:
    """In logarithms of base 2: (0, 3), (1, 3), (2, 0) have slopes 0, -3 and -1.5."""
    history: Curve = [8.0, 8.0, None, 1.0]
    slope = -1.5
    level = sorted([3.0, 3.0 + 1.5, 0.0 + 3.0])[1]
    assert forecast(history, 1) == pytest.approx([2 ** (level + slope * math.log2(5))], rel=1e-12)


@settings(deadline=None)
@given(
    length=st.integers(2, 40),
    horizon=st.integers(1, 10),
    factor=st.floats(0.01, 100),
    exponent=st.floats(-2, 2),
    data=st.data(),
)
def test_a_power_law_goes_on_whatever_is_missing(
    length: int, horizon: int, factor: float, exponent: float, data: st.DataObject
) -> None:
    law = power_law(length + horizon, factor=factor, exponent=exponent)
    present = data.draw(st.sets(st.integers(0, length - 1), min_size=2))
    history: Curve = [law[t] if t in present else None for t in range(length)]
    assert forecast(history, horizon) == pytest.approx(law[length:], rel=1e-6)


@settings(deadline=None)
@given(value=losses, length=st.integers(1, 20), horizon=st.integers(1, 20))
def test_a_constant_stays(value: float, length: int, horizon: int) -> None:
    for constant in (value, -value):
        assert forecast([constant] * length, horizon) == pytest.approx(
            [constant] * horizon, rel=1e-9
        )


@pytest.mark.parametrize("bad", range(WINDOW))
@pytest.mark.parametrize("value", [1e-3, 1e3])
def test_one_bad_epoch_moves_nothing(bad: int, value: float) -> None:
    law = power_law(20)
    history: Curve = list(law[:12])
    history[12 - WINDOW + bad] = value
    assert forecast(history, 8) == pytest.approx(law[12:], rel=1e-9)


@settings(deadline=None)
@given(tail=st.lists(losses, min_size=WINDOW, max_size=WINDOW), old=curves, older=losses)
def test_only_the_last_values_count(tail: list[float], old: list[float], older: float) -> None:
    assert forecast([*old, *tail], 3) == forecast([*[older] * len(old), *tail], 3)


def test_little_is_forecast_from_little() -> None:
    assert forecast([3.0], 4) == pytest.approx([3.0] * 4, rel=1e-12)
    assert forecast([None, 3.0, None], 2) == pytest.approx([3.0] * 2, rel=1e-12)
    assert forecast([3.0, 2.0], 0) == []
    assert forecast([], 3) is None
    assert forecast([None, None], 3) is None


@settings(deadline=None)
@given(history=curves, horizon=st.integers(2, 10))
def test_a_forecast_goes_one_way_and_flattens_in_the_logarithm(
    history: list[float], horizon: int
) -> None:
    ahead = forecast(history, horizon)
    assert ahead is not None
    rates = [
        math.log(b / a) / math.log((t + 1) / t)
        for t, (a, b) in enumerate(pairwise(ahead), start=len(history) + 1)
    ]
    assert rates == pytest.approx([rates[0]] * len(rates), rel=1e-6, abs=1e-6)


def test_a_curve_that_explodes_is_forecast_without_an_overflow() -> None:
    history: Curve = [*[None] * 98, 1e-3, 1e3]
    ahead = forecast(history, 100)
    assert ahead is not None
    assert all(math.isfinite(value) and value > 0 for value in ahead)
    assert relative_gain(history, [None] * 99 + [1.0], mode="min") is not None


# -- the gain ---------------------------------------------------------------------------------


def test_a_gain_by_hand() -> None:
    """Flat at 2: a mean of 1.5 is a quarter better, a mean of 3 is half worse."""
    assert relative_gain([2.0, 2.0], [1.75, 1.25], mode="min") == pytest.approx(0.25, rel=1e-12)
    assert relative_gain([2.0, 2.0], [3.0], mode="min") == pytest.approx(-0.5, rel=1e-12)
    assert relative_gain([2.0, 2.0], [3.0], mode="max") == pytest.approx(0.5, rel=1e-12)
    assert relative_gain([2.0, 2.0], [1.75, 1.25], mode="max") == pytest.approx(-0.25, rel=1e-12)
    assert relative_gain([-2.0, -2.0], [-1.5], mode="max") == pytest.approx(0.25, rel=1e-12)
    assert relative_gain([-2.0, -2.0], [-2.5], mode="min") == pytest.approx(0.25, rel=1e-12)


def test_a_gain_is_against_where_the_curve_was_heading() -> None:
    """8 / t is heading for 2 and 1.6 at epochs 4 and 5."""
    history: Curve = [8.0, 4.0, 8 / 3]
    assert relative_gain(history, [1.5, 1.2], mode="min") == pytest.approx(0.25, rel=1e-9)
    assert relative_gain(history, [2.0, 1.6], mode="min") == pytest.approx(0.0, abs=1e-9)


def test_a_missing_epoch_keeps_its_place_on_the_forecast() -> None:
    history: Curve = [8.0, 4.0, 8 / 3]
    assert relative_gain(history, [None, 1.2], mode="min") == pytest.approx(0.25, rel=1e-9)
    assert relative_gain([*history, None], [1.2], mode="min") == pytest.approx(0.25, rel=1e-9)


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
    for curve, mode in ((rising, "min"), (rising[::-1], "max")):
        gain = relative_gain(curve, [curve[-1]] * observed, mode=mode)
        assert gain is not None
        assert gain <= 1e-9


def _score(values: Curve) -> bool:
    return all(0 <= value < 1 for value in values if value is not None)


@settings(deadline=None)
@given(history=gappy, observed=gappy, mode=modes)
def test_the_forecast_is_never_worse_than_the_anchor(
    history: Curve, observed: Curve, mode: str
) -> None:
    assume(mode == "min" or not _score(history + observed))
    gain = relative_gain(history, observed, mode=mode)
    last = [value for value in history if value is not None][-ANCHOR:]
    if gain is None:
        return
    flat: Curve = [sorted(last)[len(last) // 2] if len(last) % 2 else (last[0] + last[1]) / 2]
    against_anchor = relative_gain(flat, observed, mode=mode)
    assert against_anchor is not None
    if mode == "min":
        assert gain <= against_anchor + 1e-9
    else:
        assert (gain <= against_anchor + 1e-9) or against_anchor < 0


@settings(deadline=None)
@given(history=gappy, observed=gappy, mode=modes, power=st.integers(-8, 8), negative=st.booleans())
def test_a_gain_does_not_depend_on_the_unit(
    history: Curve, observed: Curve, mode: str, power: int, negative: bool
) -> None:
    def scaled(values: Curve, factor: float) -> Curve:
        return [None if value is None else value * factor for value in values]

    # A positive curve to maximise may be a score below 1 in one unit and not in another.
    sign = -1.0 if negative or mode == "max" else 1.0
    history, observed = scaled(history, sign), scaled(observed, sign)
    gain = relative_gain(history, observed, mode=mode)
    again = relative_gain(scaled(history, 2.0**power), scaled(observed, 2.0**power), mode=mode)
    assert again == (None if gain is None else pytest.approx(gain, rel=1e-6, abs=1e-9))


@settings(deadline=None)
@given(history=curves, observed=curves, mode=modes)
def test_a_better_epoch_raises_the_gain(
    history: list[float], observed: list[float], mode: str
) -> None:
    better = [value * (0.9 if mode == "min" else 1.1) for value in observed]
    low = relative_gain(history, observed, mode=mode)
    high = relative_gain(history, better, mode=mode)
    if low is None or high is None:
        assert low is high is None
    else:
        assert high >= low


def test_a_score_is_judged_by_what_is_missing_to_one() -> None:
    rising = [0.1, 0.3, 0.5, 0.6]
    gain = relative_gain(rising, [0.9] * 5, mode="max")
    assert gain is not None
    assert gain > 0, "0.9 is better than any power law of the error leads to"
    errors = relative_gain([1 - y for y in rising], [1 - 0.9] * 5, mode="min")
    assert gain == pytest.approx(errors)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_doubt_measures_against_a_curve_that_improves_less(mode):
    sign = 1 if mode == "min" else -1
    history = [sign * value for value in (16.0, 9.0, 8.0, 5.0, 4.5, 4.0)]
    after = [sign * value for value in (3.8, 3.6)]
    gains = [relative_gain(history, after, mode=mode, doubt=doubt) for doubt in (0.0, 0.25, 0.4)]
    assert gains == sorted(gains)
    assert gains[0] < gains[1] < gains[2]


def test_a_law_without_scatter_leaves_no_doubt():
    law = [4.0 / t for t in range(1, 8)]
    sure, unsure = (relative_gain(law[:5], law[5:], mode="min", doubt=d) for d in (0.0, 0.4))
    assert sure == pytest.approx(0.0, abs=1e-12)
    assert unsure == pytest.approx(sure, abs=1e-12)
