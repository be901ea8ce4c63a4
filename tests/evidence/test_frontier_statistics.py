"""What several seeds say together, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from esper_lightning.evidence.frontier.statistics import (
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
    ratio_of_means,
    resampled_difference,
)


def test_the_middle_half_counts() -> None:
    told = interquartile_mean([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 1000.0])
    assert told.value == 7.0  # of 4, 6, 8, 10
    assert 0.0 <= told.low < 7.0 < told.high


def test_pairing_takes_out_what_seeds_have_in_common() -> None:
    first = [10.0, 20.0, 30.0, 40.0, 50.0]
    second = [9.0, 18.9, 29.1, 39.0, 49.0]
    told = paired_difference(first, second)
    assert told.value == pytest.approx(1.0)
    # Gaps of 1, 1.1, 0.9, 1 and 1: 2.776 standard errors of 0.0316, by the table of Student's t.
    assert (told.low, told.high) == (
        pytest.approx(0.9122, abs=1e-4),
        pytest.approx(1.0878, abs=1e-4),
    )


def test_of_few_pairs_a_resampled_interval_is_the_narrower_one() -> None:
    first, second = [10.0, 20.0, 30.0, 40.0, 50.0], [9.0, 18.9, 29.1, 39.0, 49.0]
    student, told = paired_difference(first, second), resampled_difference(first, second)
    assert told.value == student.value
    assert student.low < told.low < told.value < told.high < student.high


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("first", "second", "chance"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0, 1.0], [2.0, 3.0], 0.0),
        ([1.0, 1.0, 1.0], [1.0, 1.0], 0.5),
        ([0.0, 2.0], [1.0, 1.0], 0.5),
    ],
)
def test_probability_of_improvement(first: list[float], second: list[float], chance: float) -> None:
    told = probability_of_improvement(first, second)
    assert told.value == chance
    assert told.low <= chance <= told.high


@pytest.mark.parametrize("seeds", [2, 5, 10])
def test_an_interval_covers_as_often_as_it_says(seeds: int) -> None:
    """2,000 samples around a known mean; the standard deviation of the count is 10."""
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        told = paired_difference(list(draw.normal(1.0, 1.0, seeds)), [0.0] * seeds)
        covered += told.low <= 1.0 <= told.high
    assert 1860 <= covered <= 1940


def test_one_run_says_nothing_about_another() -> None:
    told = interquartile_mean([3.0])
    assert told.value == 3.0
    assert (told.low, told.high) == (-math.inf, math.inf)


def test_costs_are_compared_as_sums() -> None:
    assert ratio_of_means([1.0, 3.0], [2.0, 6.0]) == 0.5
