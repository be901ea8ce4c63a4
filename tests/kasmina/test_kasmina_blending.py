"""Every ramp goes from exactly 0 to exactly 1, and never back."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.kasmina.blending import alpha_at
from esper_lightning.leyline import BlendCurve, BlendSchedule

schedules = st.builds(
    BlendSchedule, curve=st.sampled_from(BlendCurve), num_steps=st.integers(1, 10**9)
)


@settings(deadline=None)
@given(schedule=schedules, beyond=st.integers(0, 10**9))
def test_a_ramp_is_exactly_0_until_it_begins_and_exactly_1_from_its_end_on(
    schedule: BlendSchedule, beyond: int
) -> None:
    assert alpha_at(schedule, -beyond) == 0.0
    assert alpha_at(schedule, schedule.num_steps + beyond) == 1.0


@settings(deadline=None)
@given(schedule=schedules, data=st.data())
def test_a_ramp_stays_between_its_ends_and_never_falls(
    schedule: BlendSchedule, data: st.DataObject
) -> None:
    first, second = sorted(
        data.draw(st.lists(st.integers(0, schedule.num_steps), min_size=2, max_size=2))
    )
    assert 0.0 <= alpha_at(schedule, first) <= alpha_at(schedule, second) <= 1.0


@pytest.mark.parametrize("curve", BlendCurve)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_a_ramp_rises_with_every_step(curve: BlendCurve, num_steps: int) -> None:
    schedule = BlendSchedule(curve=curve, num_steps=num_steps)
    alphas = [alpha_at(schedule, step) for step in range(num_steps + 1)]
    assert all(before < after for before, after in pairwise(alphas))


@settings(deadline=None)
@given(schedule=schedules, data=st.data())
def test_a_ramp_is_symmetric_about_its_middle(schedule: BlendSchedule, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, schedule.num_steps))
    mirrored = alpha_at(schedule, schedule.num_steps - step)
    assert alpha_at(schedule, step) + mirrored == pytest.approx(1.0, abs=1e-12)


def test_curves_by_hand() -> None:
    def at(curve: BlendCurve, step: int) -> float:
        return alpha_at(BlendSchedule(curve=curve, num_steps=6), step)

    assert [at(BlendCurve.LINEAR, step) for step in (1, 3, 5)] == [1 / 6, 0.5, 5 / 6]
    cosine = [at(BlendCurve.COSINE, step) for step in (1, 2, 3, 4)]
    assert cosine == pytest.approx([0.5 - math.sqrt(3) / 4, 0.25, 0.5, 0.75], abs=1e-12)
    low = 1 / (1 + math.exp(5))
    third = (1 / (1 + math.exp(10 / 6)) - low) / (1 - 2 * low)
    sigmoid = [at(BlendCurve.SIGMOID, step) for step in (2, 3, 4)]
    assert sigmoid == pytest.approx([third, 0.5, 1 - third], abs=1e-12)


def test_the_smoother_a_curve_the_softer_its_ends() -> None:
    first = {c: alpha_at(BlendSchedule(curve=c, num_steps=100), 1) for c in BlendCurve}
    assert first[BlendCurve.COSINE] < first[BlendCurve.SIGMOID] < first[BlendCurve.LINEAR]
