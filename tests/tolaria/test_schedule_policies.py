import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.schedule import Constant, Cosine, Newcomer, WarmupStableDecay

fractions = st.floats(0, 1)
policies = st.one_of(
    st.builds(Constant, warmup=fractions),
    st.builds(Cosine, warmup=st.floats(0, 1, exclude_max=True), floor=fractions),
    st.tuples(fractions, fractions, fractions).map(
        lambda t: WarmupStableDecay(warmup=t[0], decay=(1 - t[0]) * t[1], floor=t[2])
    ),
)


@settings(deadline=None)
@given(policy=policies, total=st.integers(1, 5000), step=st.integers(0, 6000))
def test_every_factor_lies_between_0_and_1(policy, total, step):
    assert 0 <= policy(step, total) <= 1


@settings(deadline=None)
@given(policy=policies, total=st.integers(1, 300))
def test_a_policy_rises_in_warm_up_and_never_again(policy, total):
    factors = [policy(step, total) for step in range(total + 3)]
    first_after = next(
        (step for step in range(total + 3) if step + 1 >= policy.warmup * total), total
    )
    after = factors[first_after:]
    assert all(a >= b - 1e-12 for a, b in pairwise(after))


def test_warmup_stable_decay_by_hand():
    policy = WarmupStableDecay(warmup=0.02, decay=0.3)
    factors = [policy(step, 1000) for step in range(1002)]
    assert factors[:3] == [1 / 20, 2 / 20, 3 / 20]
    assert factors[18] == 19 / 20
    assert set(factors[19:701]) == {1.0}
    assert factors[701] == 299 / 300
    assert factors[850] == 0.5
    assert factors[999] == 1 / 300
    assert factors[1000:] == [0.0, 0.0]


def test_warmup_stable_decay_ends_at_its_floor():
    policy = WarmupStableDecay(warmup=0.0, decay=0.5, floor=0.2)
    assert [policy(step, 10) for step in (0, 5, 10, 11)] == [1.0, 1.0, 0.2, 0.2]
    assert policy(7, 10) == pytest.approx(0.2 + 0.8 * 3 / 5, abs=1e-15)


def test_without_decay_the_rate_falls_only_behind_the_last_step():
    assert [WarmupStableDecay(warmup=0, decay=0)(step, 4) for step in range(5)] == [1, 1, 1, 1, 0]


def test_cosine_by_hand():
    policy = Cosine(warmup=0.2, floor=0.1)
    assert policy(0, 10) == 0.5
    assert policy(1, 10) == 1.0
    assert policy(2, 10) == 1.0
    assert policy(6, 10) == pytest.approx(0.55)
    assert policy(4, 10) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert [policy(step, 10) for step in (10, 11)] == [0.1, 0.1]


def test_constant_by_hand():
    assert [Constant(warmup=0.5)(step, 4) for step in range(6)] == [0.5, 1, 1, 1, 1, 1]


def test_a_newcomer_warms_up_from_planting_then_follows_the_host():
    host, newcomer = WarmupStableDecay(), Newcomer(warmup_steps=20)
    at = {
        step: newcomer(host, step=step, planted_at=300, total_steps=1000)
        for step in range(300, 1000)
    }
    assert [at[300], at[309], at[319]] == [1 / 20, 10 / 20, 1.0]
    assert all(at[step] == host(step, 1000) for step in range(319, 1000))


def test_a_newcomer_with_its_own_horizon_lives_the_whole_policy():
    host = WarmupStableDecay(warmup=0.0, decay=0.5)
    newcomer = Newcomer(warmup_steps=1, multiplier=2.0, own_horizon=True)
    at = [newcomer(host, step=step, planted_at=60, total_steps=100) for step in (60, 80, 90, 100)]
    assert at == [2.0, 2.0, 1.0, 0.0]
    assert newcomer(host, step=100, planted_at=100, total_steps=100) == 2.0


@settings(deadline=None)
@given(
    policy=policies,
    planted_at=st.integers(0, 300),
    age=st.integers(0, 300),
    total=st.integers(1, 500),
    warmup_steps=st.integers(1, 50),
    own_horizon=st.booleans(),
)
def test_a_newcomer_stays_within_its_multiplier(
    policy, planted_at, age, total, warmup_steps, own_horizon
):
    newcomer = Newcomer(warmup_steps=warmup_steps, multiplier=3.0, own_horizon=own_horizon)
    factor = newcomer(policy, step=planted_at + age, planted_at=planted_at, total_steps=total)
    assert 0 <= factor <= 3.0


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (WarmupStableDecay, {"warmup": -0.1}, "warmup must be between 0 and 1, got -0.1"),
        (WarmupStableDecay, {"decay": 1.1}, "decay must be between 0 and 1"),
        (WarmupStableDecay, {"floor": float("nan")}, "floor must be between 0 and 1, got nan"),
        (WarmupStableDecay, {"warmup": 0.6, "decay": 0.5}, "at most 1, got 0.6 and 0.5"),
        (Cosine, {"warmup": 1.0}, "warmup must be below 1"),
        (Cosine, {"floor": 2.0}, "floor must be between 0 and 1"),
        (Constant, {"warmup": 5}, "warmup must be between 0 and 1, got 5"),
        (Newcomer, {"warmup_steps": 0}, "warmup_steps must be a whole number of at least 1, got 0"),
        (Newcomer, {"multiplier": 0.0}, "multiplier must be finite and above 0"),
        (Newcomer, {"multiplier": float("inf")}, "multiplier must be finite and above 0"),
    ],
)
def test_bad_arguments_are_refused(kind, arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        kind(**arguments)
