"""The reward is a function of where a run stands: it telescopes, and no action is paid."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.episode import Episode, Step
from esper_lightning.simic.reward import LEAST, MAX_GAIN, Standing, Utility

VALUES = st.floats(1e-6, 1e3)


@st.composite
def beside_their_twins(draw: st.DrawFn) -> tuple[list[Standing], list[Standing]]:
    num = draw(st.integers(1, 12))
    run, twin = [], []
    for epoch in range(num):
        flops = 1e6 * (epoch + 1)
        twin.append(Standing(epoch=epoch, value=draw(VALUES), parameters=100, flops=flops))
        run.append(
            Standing(
                epoch=epoch,
                value=draw(st.one_of(VALUES, st.none(), st.just(math.nan))),
                parameters=draw(st.integers(100, 1000)),
                flops=flops * draw(st.floats(1, 9)),
            )
        )
    return run, twin


@given(beside_their_twins(), st.integers(1, 4), st.sampled_from(["min", "max"]))
def test_the_twin_is_worth_nothing_at_every_boundary(
    both: tuple[list[Standing], list[Standing]], window: int, mode: str
) -> None:
    _, twin = both
    assert Utility(window=window).curve(twin, twin, mode=mode) == [0.0] * len(twin)


@given(beside_their_twins(), st.floats(0, 1), st.data())
def test_rewards_telescope_whatever_was_done(
    both: tuple[list[Standing], list[Standing]], discount: float, data: st.DataObject
) -> None:
    run, twin = both
    potentials = Utility().curve(run, twin, mode="min")
    utility = data.draw(st.floats(-3, 3))
    rewards = episode(potentials, utility).rewards
    assert len(rewards) == len(potentials)
    assert sum(rewards) == pytest.approx(utility - potentials[0], abs=1e-9)
    # The discounted form: what is paid as gamma * after - before adds up to the ends as well.
    shaped = [discount * after - before for before, after in pairwise([*potentials, utility])]
    told = sum(discount**step * each for step, each in enumerate(shaped))
    assert told == pytest.approx(discount ** len(shaped) * utility - potentials[0], abs=1e-9)


def episode(potentials: list[float], utility: float) -> Episode:
    """Whose observations and actions nothing looks at."""
    nothing: object = None
    steps = tuple(
        Step(
            observation=nothing,  # type: ignore[arg-type]
            actions=(),
            log_probability=0.0,
            version=1,
            potential=each,
        )
        for each in potentials
    )
    return Episode(id="", task="", seed=0, policy="learned", steps=steps, utility=utility)


@given(beside_their_twins(), st.lists(st.integers(0, 11), min_size=2, max_size=20))
def test_no_way_back_to_where_a_run_stood_gains_anything(
    both: tuple[list[Standing], list[Standing]], way: list[int]
) -> None:
    run, twin = both
    places = [place % len(run) for place in way]
    worth = [Utility(window=1).of([run[place]], [twin[place]], mode="min") for place in places]
    cycle = [*worth, worth[0]]
    assert sum(after - before for before, after in pairwise(cycle)) == pytest.approx(0, abs=1e-9)


@given(beside_their_twins())
def test_utility_is_bounded_and_finite(both: tuple[list[Standing], list[Standing]]) -> None:
    run, twin = both
    for worth, here in zip(Utility().curve(run, twin, mode="min"), run, strict=True):
        dearest = 0.002 * (here.parameters / 100 - 1) + 0.002 * 9
        assert -MAX_GAIN - dearest <= worth <= MAX_GAIN


def at(
    value: float | None, *, epoch: int = 0, parameters: int = 100, flops: float = 1e6
) -> Standing:
    return Standing(epoch=epoch, value=value, parameters=parameters, flops=flops)


def test_less_loss_is_worth_its_logarithm_and_size_has_a_price() -> None:
    measure = Utility(rent_parameters=0.1, rent_flops=0.01)
    assert measure.of([at(0.5)], [at(1.0)], mode="min") == pytest.approx(math.log(2))
    assert measure.of([at(0.5)], [at(1.0)], mode="max") == pytest.approx(-math.log(2))
    large = at(1.0, parameters=300, flops=5e6)
    assert measure.of([large], [at(1.0)], mode="min") == pytest.approx(-0.1 * 2 - 0.01 * 4)


def test_while_a_run_goes_on_the_last_epochs_are_averaged() -> None:
    run = [at(1.0), at(1.0, epoch=1), at(0.25, epoch=2)]
    twin = [at(1.0, epoch=epoch) for epoch in range(4)]
    found = Utility(window=2, rent_flops=0, rent_parameters=0).curve(run, twin, mode="min")
    assert found == pytest.approx([0, 0, math.log(4) / 2])


def test_a_run_that_broke_is_worth_least_and_perfect_ones_are_equal() -> None:
    for value in (None, math.nan, math.inf):
        assert Utility().of([at(value)], [at(1.0)], mode="min") == -MAX_GAIN
    assert Utility().of([at(0.0)], [at(LEAST)], mode="min") == 0
    assert Utility().of([at(0.0)], [at(1.0)], mode="min") == MAX_GAIN


def test_epochs_without_validation_leave_it_what_it_was() -> None:
    run = [at(None), at(0.5, epoch=1), at(None, epoch=2), at(0.25, epoch=3)]
    twin = [at(None), at(1.0, epoch=1), at(None, epoch=2), at(1.0, epoch=3)]
    found = Utility(window=1).curve(run, twin, mode="min")
    assert found == pytest.approx([0, math.log(2), math.log(2), math.log(4)])


def test_what_cannot_be_compared_is_refused() -> None:
    for twin in (None, math.nan):
        with pytest.raises(InvalidArgument, match="nothing to compare with"):
            Utility().of([at(1.0)], [at(twin)], mode="min")
    with pytest.raises(InvalidArgument, match="positive, got -1"):
        Utility().of([at(-1.0)], [at(1.0)], mode="min")
    with pytest.raises(InvalidArgument, match="no epoch 3"):
        Utility().curve([at(1.0, epoch=3)], [at(1.0)], mode="min")
    for wrong in ({"rent_flops": -1}, {"rent_parameters": math.inf}, {"window": 0}):
        with pytest.raises(InvalidArgument):
            Utility(**wrong)
