"""The statistics of measurements."""

import numpy as np
import pytest

from esper_lightning.evidence.intervals import bootstrap, ratios


def test_an_interval_of_a_constant_is_a_point() -> None:
    found = bootstrap([2.0] * 5)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    draws = generator.normal(1.0, 0.1, size=(200, 40))
    found = [bootstrap(list(draw), resamples=400, seed=n) for n, draw in enumerate(draws)]
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in found])
    assert 0.90 <= covered <= 0.99


def test_the_mean_of_known_numbers() -> None:
    """A mean over n normal draws varies by sigma / sqrt(n): 1.96 of that each way."""
    values = np.random.default_rng(1).normal(0.0, 1.0, size=400)
    found = bootstrap(list(values), statistic=np.mean)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_a_median_is_little_moved_by_one_interruption() -> None:
    calm = [1.0 + 0.001 * number for number in range(21)]
    assert bootstrap([*calm[:-1], 50.0]).high < 1.03


def test_the_same_seed_draws_the_same() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    assert bootstrap(values) == bootstrap(values)


def test_what_is_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 measurements, got 1"):
        bootstrap([1.0])
    with pytest.raises(ValueError, match="2 and 1 measurements make no pairs"):
        ratios([1.0, 2.0], [1.0])
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
