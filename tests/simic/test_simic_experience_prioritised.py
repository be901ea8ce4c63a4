"""Prioritised sampling against what the paper's equations say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_lightning.simic.experience.prioritised import draw, probabilities, weights

PRIORITIES = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30).map(np.array)
EXPONENTS = st.floats(0, 1)


@given(PRIORITIES, EXPONENTS)
def test_probabilities_are_those_of_equation_1(priorities, exponent: float) -> None:
    powers = [float(each) ** exponent for each in priorities]
    expected = [each / sum(powers) for each in powers]
    np.testing.assert_allclose(probabilities(priorities, exponent), expected, rtol=1e-9)


@given(PRIORITIES, EXPONENTS, st.integers(1, 40), st.integers(0, 9))
def test_each_is_drawn_as_often_as_its_probability_says_up_to_one(
    priorities, exponent: float, num: int, seed: int
) -> None:
    """One from each equal part: whoever spans k parts wholly is drawn at least k times."""
    odds = probabilities(priorities, exponent)
    drawn = draw(odds, num, seed=seed)
    assert drawn == draw(odds, num, seed=seed) == sorted(drawn)
    counts = np.bincount(drawn, minlength=len(odds))
    assert counts.sum() == num
    assert np.all(np.abs(counts - num * odds) <= 2 + 1e-9)


@given(PRIORITIES, EXPONENTS, st.floats(0, 1))
def test_weights_undo_what_the_correction_asks_for(
    priorities, exponent: float, correction: float
) -> None:
    odds = probabilities(priorities, exponent)
    everyone = list(range(len(odds)))
    found = np.array(weights(odds, everyone, correction=correction))
    raw = (len(odds) * odds) ** -correction
    np.testing.assert_allclose(found, raw / raw.max(), rtol=1e-9)
    whole = np.array(weights(odds, everyone, correction=1.0))
    # Wholly undone, each counts in expectation as if all were drawn alike.
    np.testing.assert_allclose(odds * whole / (odds * whole).sum(), 1 / len(odds), rtol=1e-9)


def test_with_exponent_0_all_are_drawn_alike() -> None:
    assert probabilities(np.array([1.0, 1e3]), 0.0).tolist() == [0.5, 0.5]
    assert weights(np.array([0.5, 0.5]), [0, 1], correction=1.0) == [1.0, 1.0]
    assert draw(np.array([1.0]), 3, seed=0) == [0, 0, 0]
    assert probabilities(np.array([2.0]), 1.0).tolist() == [pytest.approx(1.0)]
