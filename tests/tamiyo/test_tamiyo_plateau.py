import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tamiyo.plateau import improvement, worsening


def test_a_curve_that_falls_by_a_constant_share():
    curve = [(epoch, 0.97**epoch) for epoch in range(10)]
    assert improvement(curve, mode="min", window=4) == pytest.approx(0.03, rel=0.05)


def test_max_is_the_mirror_image():
    rising = [(0, 0.5), (1, 0.55), (2, 0.6)]
    rate = improvement(rising, mode="max", window=3)
    assert rate == pytest.approx(0.05 / 0.55)
    assert improvement(rising, mode="min", window=3) == -rate


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_unit_does_not_matter(mode, scale):
    curve = [(epoch, math.exp(-0.1 * epoch)) for epoch in range(5)]
    scaled = [(epoch, scale * value) for epoch, value in curve]
    expected = improvement(curve, mode=mode, window=4)
    assert improvement(scaled, mode=mode, window=4) == pytest.approx(expected)


def test_one_outlier_does_not_make_a_slope():
    flat = [(0, 1.0), (1, 1.001), (2, 5.0), (3, 1.0), (4, 0.999)]
    assert abs(improvement(flat, mode="min", window=5)) < 0.001


def test_noise_is_told_from_progress():
    source = random.Random(0)
    flat = [improvement(_noisy(source, 0.0), mode="min", window=6) for _ in range(200)]
    falling = [improvement(_noisy(source, 0.05), mode="min", window=6) for _ in range(200)]
    assert sum(rate < 0.01 for rate in flat) > 190
    assert sum(rate < 0.01 for rate in falling) < 10


def test_a_missing_epoch_is_no_point_but_counts_as_time():
    whole = [(epoch, 1.0 - 0.01 * epoch) for epoch in range(9)]
    gappy = [point for point in whole if point[0] % 2 == 0]
    slope = improvement(gappy, mode="min", window=3)
    assert slope == pytest.approx(0.01 / 0.94)


@pytest.mark.parametrize("num", [0, 1, 2])
def test_too_few_points_say_nothing(num):
    assert improvement([(epoch, 1.0) for epoch in range(num)], mode="min", window=4) is None


def test_values_around_zero_do_not_explode():
    curve = [(0, -0.01), (1, 0.0), (2, 0.01)]
    assert 0 < improvement(curve, mode="max", window=3) <= 1


def test_constants_do_not_improve():
    assert improvement([(epoch, 0.0) for epoch in range(3)], mode="min", window=3) == 0
    assert improvement([(epoch, 2.0) for epoch in range(3)], mode="max", window=3) == 0


def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidArgument, match="'min' or 'max', got 'best'"):
        improvement([], mode="best", window=3)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8),
    st.sampled_from(["min", "max"]),
    st.integers(3, 8),
)
def test_any_finite_curve_gives_a_finite_answer_or_none(values, mode, window):
    rate = improvement(list(enumerate(values)), mode=mode, window=window)
    assert rate is None or math.isfinite(rate)


def test_worsening_is_against_the_level_at_planting():
    falls = [(0, 0.8), (1, 0.8), (2, 0.4), (3, 0.4)]
    assert worsening(falls, mode="max", since=1) == pytest.approx(0.5)
    assert worsening(falls, mode="min", since=1) == pytest.approx(-0.5)


def test_a_single_bad_epoch_is_no_worsening():
    spike = [(0, 2.0), (1, 2.0), (2, 9.0), (3, 2.0)]
    assert worsening(spike, mode="min", since=1) == 0.0
    assert worsening(spike[:3], mode="min", since=1) is None
    assert worsening([*spike, (4, 3.0), (5, 4.0)], mode="min", since=1) == pytest.approx(0.5)


def test_worsening_needs_a_point_on_either_side():
    assert worsening([], mode="min", since=3) is None
    assert worsening([(0, 1.0)], mode="min", since=0) is None
    assert worsening([(4, 1.0)], mode="min", since=3) is None


def _noisy(source: random.Random, slope: float) -> list[tuple[int, float]]:
    return [(epoch, 1.0 - slope * epoch + source.gauss(0, 0.01)) for epoch in range(6)]
