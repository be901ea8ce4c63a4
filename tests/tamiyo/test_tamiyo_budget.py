import math

import pytest
from growing_run import state
from hypothesis import given
from hypothesis import strategies as st

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tamiyo.budget import Price, Room


def test_the_tightest_limit_counts_and_what_was_added_is_taken_off():
    grown = state(host_parameters=1000, num_parameters=1600)
    assert GrowthBudget(max_growth=2.0).room(grown).parameters == 1400
    assert GrowthBudget(max_growth=2.0, max_parameters=700).room(grown).parameters == 100
    assert GrowthBudget(max_growth=0.5).room(grown).parameters == 0


def test_none_is_no_limit():
    room = GrowthBudget(max_growth=None).room(state())
    assert room.is_unlimited
    assert room.admits(Price(parameters=10**12, flops=1e18))
    assert room.share(3).is_unlimited


def test_flops_are_limited_against_the_host():
    budget = GrowthBudget(max_growth=None, max_flops_growth=1.5)
    room = budget.room(state(host_flops=100.0, flops=180.0))
    assert room.flops == 70
    assert room.admits(Price(parameters=1, flops=70.0))
    assert not room.admits(Price(parameters=1, flops=70.5))


@pytest.mark.parametrize(
    "counted",
    [{}, {"host_flops": 100.0}, {"flops": 100.0}, {"host_flops": math.nan, "flops": 100.0}],
)
def test_flops_that_were_not_counted_are_missing_not_zero(counted):
    room = GrowthBudget(max_flops_growth=10.0).room(state(**counted))
    assert not room.admits(Price(parameters=0, flops=0.0))
    assert "were not counted" in str(room)
    assert GrowthBudget().room(state(**counted)).admits(Price(parameters=4000, flops=1e9))


@given(st.integers(0, 10**9), st.floats(0, 1e15), st.integers(1, 20))
def test_shares_together_never_exceed_the_room(parameters, flops, num):
    share = Room(parameters=float(parameters), flops=flops).share(num)
    assert num * share.parameters <= parameters
    assert num * share.flops <= flops


@pytest.mark.parametrize("name", ["max_parameters", "max_growth", "max_flops_growth"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_impossible_limits_are_refused(name, value):
    with pytest.raises(InvalidArgument, match=f"{name} must be at least 0"):
        GrowthBudget(**{name: value})
