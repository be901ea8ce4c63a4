"""A measurement passes on the right side of its threshold, and only there."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import Comparison, Gate, GateResult, Measurement

numbers = st.floats(allow_nan=False)


def measured(value: float | None, comparison: Comparison, threshold: float) -> Measurement:
    return Measurement(name="gain", value=value, comparison=comparison, threshold=threshold)


@settings(deadline=None)
@given(value=numbers, threshold=numbers)
def test_a_measurement_passes_on_the_right_side(value: float, threshold: float) -> None:
    assert measured(value, Comparison.AT_LEAST, threshold).passed == (value >= threshold)
    assert measured(value, Comparison.AT_MOST, threshold).passed == (value <= threshold)


@pytest.mark.parametrize("value", [None, math.nan])
@settings(deadline=None)
@given(comparison=st.sampled_from(Comparison), threshold=st.floats())
def test_what_is_missing_or_not_a_number_never_passes(
    value: float | None, comparison: Comparison, threshold: float
) -> None:
    assert not measured(value, comparison, threshold).passed


@settings(deadline=None)
@given(value=st.floats(), comparison=st.sampled_from(Comparison))
def test_nothing_passes_a_threshold_that_is_not_a_number(
    value: float, comparison: Comparison
) -> None:
    assert not measured(value, comparison, math.nan).passed


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_gate_passes_when_every_measurement_does(outcomes: list[bool]) -> None:
    result = GateResult(
        gate=Gate.G2_STABILITY,
        measurements=tuple(measured(float(ok), Comparison.AT_LEAST, 1.0) for ok in outcomes),
    )
    assert result.passed == all(outcomes)
    assert len(result.failures) == outcomes.count(False)
    assert not any(failure.passed for failure in result.failures)


def test_a_gate_tells_what_it_measured_and_when_it_fails_only_what_failed() -> None:
    good = Measurement(
        name="gain",
        value=0.0123456,
        comparison=Comparison.AT_LEAST,
        threshold=0.01,
        unit="relative",
    )
    bad = Measurement(name="alpha", value=0.5, comparison=Comparison.AT_LEAST, threshold=1.0)
    missing = Measurement(name="ratio", value=None, comparison=Comparison.AT_MOST, threshold=2.0)
    assert str(GateResult(gate=Gate.G4_SYSTEM_IMPACT, measurements=(good, good))) == (
        "G4 passed: gain 0.01235 >= 0.01 relative; gain 0.01235 >= 0.01 relative"
    )
    assert str(GateResult(gate=Gate.G3_INTERFACE, measurements=(good, bad, missing))) == (
        "G3 failed: alpha 0.5 >= 1 (fails); ratio missing <= 2 (fails)"
    )


def test_the_names_of_gates_and_comparisons_are_those_of_every_saved_file() -> None:
    assert [gate.value for gate in Gate] == ["G0", "G1", "G2", "G3", "G4", "G5"]
    assert [comparison.value for comparison in Comparison] == [">=", "<="]
