"""Advantages and returns, beside sums that are written out."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampled_episodes import episode

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.learning import gae, normalised, vtrace
from esper_lightning.simic.learning import round as round_module
from esper_lightning.tamiyo.learned import StoredPolicy

NUMBERS = st.floats(-10, 10, allow_nan=False)
SHARES = st.floats(0, 1)


@st.composite
def batches(draw):
    """Episodes of several lengths: rewards, values, log-ratios, tails and their lengths."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    tables = [[[draw(NUMBERS) for _ in range(length)] for length in lengths] for _ in range(2)] + [
        [[draw(st.floats(-2, 2)) for _ in range(length)] for length in lengths]
    ]
    tails = [draw(st.one_of(st.just(0.0), NUMBERS)) for _ in lengths]
    return *tables, tails


def padded(rows, fill=123.0):
    length = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows]).double()


def there(rows):
    length = max(map(len, rows))
    return torch.tensor([[place < len(row) for place in range(length)] for row in rows])


def as_lists(table, rows):
    return [table[number, : len(row)].tolist() for number, row in enumerate(rows)]


def exponentially_weighted(rewards, values, tail, discount, decay):
    """Equation 16 of Schulman et al. 2016 as a sum: delta(t + l) times (gamma lambda)^l."""
    after = [*values[1:], tail]
    deltas = [r + discount * b - v for r, b, v in zip(rewards, after, values, strict=True)]
    return [
        sum((discount * decay) ** k * delta for k, delta in enumerate(deltas[start:]))
        for start in range(len(deltas))
    ]


def equation_1(rewards, values, ratios, tail, discount, decay, largest):
    """The returns of Espeholt et al. 2018 as their sum over products of c."""
    after = [*values[1:], tail]
    rho = [min(largest, math.exp(ratio)) for ratio in ratios]
    c = [decay * min(largest, math.exp(ratio)) for ratio in ratios]
    found = []
    for start in range(len(values)):
        total = values[start]
        for t in range(start, len(values)):
            delta = rho[t] * (rewards[t] + discount * after[t] - values[t])
            total += discount ** (t - start) * math.prod(c[start:t]) * delta
        found.append(total)
    return found


@given(batches(), SHARES, SHARES)
def test_gae_is_its_sum(batch, discount, decay):
    rewards, values, _, tails = batch
    found = gae(
        padded(rewards),
        padded(values),
        torch.tensor(tails).double(),
        there(rewards),
        discount=discount,
        decay=decay,
    )
    for own, row, value, tail in zip(
        as_lists(found.advantages, rewards), rewards, values, tails, strict=True
    ):
        assert own == pytest.approx(
            exponentially_weighted(row, value, tail, discount, decay), rel=1e-6, abs=1e-6
        )


@given(batches(), SHARES, SHARES, st.floats(0.1, 3))
def test_vtrace_is_equation_1(batch, discount, decay, largest):
    rewards, values, ratios, tails = batch
    found = vtrace(
        padded(rewards),
        padded(values),
        torch.tensor(tails).double(),
        there(rewards),
        padded(ratios),
        discount=discount,
        decay=decay,
        largest=largest,
    )
    for own, *row in zip(
        as_lists(found.returns, rewards), rewards, values, ratios, tails, strict=True
    ):
        expected = equation_1(*row, discount, decay, largest)
        assert own == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(batches(), SHARES)
def test_advantages_of_vtrace_are_those_of_section_4_2(batch, discount):
    """With lambda 1: the reward and the return that follows, minus the value."""
    rewards, values, ratios, tails = batch
    found = vtrace(
        padded(rewards),
        padded(values),
        torch.tensor(tails).double(),
        there(rewards),
        padded(ratios),
        discount=discount,
        decay=1.0,
    )
    for number, row in enumerate(rewards):
        following = [*found.returns[number, 1 : len(row)].tolist(), tails[number]]
        expected = [
            reward + discount * after - value
            for reward, after, value in zip(row, following, values[number], strict=True)
        ]
        assert found.advantages[number, : len(row)].tolist() == pytest.approx(
            expected, rel=1e-6, abs=1e-6
        )


@given(batches(), SHARES)
def test_lambda_1_is_what_came_minus_the_value(batch, discount):
    rewards, values, _, tails = batch
    found = gae(
        padded(rewards),
        padded(values),
        torch.tensor(tails).double(),
        there(rewards),
        discount=discount,
        decay=1.0,
    )
    for number, row in enumerate(rewards):
        came = [
            sum(discount**k * reward for k, reward in enumerate(row[start:]))
            + discount ** (len(row) - start) * tails[number]
            for start in range(len(row))
        ]
        assert found.returns[number, : len(row)].tolist() == pytest.approx(came, abs=1e-6)


@given(batches(), SHARES)
def test_lambda_0_is_one_step_s_surprise(batch, discount):
    rewards, values, _, tails = batch
    found = gae(
        padded(rewards),
        padded(values),
        torch.tensor(tails).double(),
        there(rewards),
        discount=discount,
        decay=0.0,
    )
    for number, row in enumerate(rewards):
        after = [*values[number][1:], tails[number]]
        expected = [
            reward + discount * behind - value
            for reward, behind, value in zip(row, after, values[number], strict=True)
        ]
        assert found.advantages[number, : len(row)].tolist() == pytest.approx(expected, abs=1e-6)


@given(batches(), SHARES, SHARES)
def test_padding_says_nothing(batch, discount, decay):
    rewards, values, ratios, tails = batch
    told = []
    for fill in (0.0, float("nan")):
        found = vtrace(
            padded(rewards, fill),
            padded(values, fill),
            torch.tensor(tails).double(),
            there(rewards),
            padded(ratios, fill),
            discount=discount,
            decay=decay,
        )
        told.append(torch.stack([found.advantages, found.returns]))
    assert told[0].equal(told[1])
    assert (told[0][:, ~there(rewards)] == 0).all()


def test_what_is_cut_off_goes_on_and_what_ended_does_not():
    """Worked out by hand: two equal episodes, of which the second would have earned 4 more."""
    found = gae(
        torch.tensor([[1.0, 2.0], [1.0, 2.0]]),
        torch.tensor([[0.5, 1.0], [0.5, 1.0]]),
        torch.tensor([0.0, 4.0]),
        torch.ones(2, 2, dtype=torch.bool),
        discount=0.5,
        decay=0.5,
    )
    # delta: 1 + 0.5 * 1 - 0.5 = 1, then 2 - 1 = 1 or 2 + 0.5 * 4 - 1 = 3.
    torch.testing.assert_close(found.advantages, torch.tensor([[1.25, 1.0], [1.75, 3.0]]))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_normalised_has_mean_0_and_deviation_1(scale):
    given_ = torch.tensor([3.0, -1.0, 0.5, 8.0]) * scale
    found = normalised(given_)
    assert found.mean().item() == pytest.approx(0, abs=1e-6)
    assert found.square().mean().item() == pytest.approx(1, abs=1e-5)
    assert (found.argsort() == given_.argsort()).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1e6])
def test_what_does_not_vary_is_nothing(value):
    assert normalised(torch.full((7,), value)).tolist() == [0.0] * 7
    assert normalised(torch.tensor([value])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount": 1.1}, "discount must be from 0 to 1"),
        ({"decay": -0.1}, "decay must be from 0 to 1"),
        ({"decay": "x"}, "decay must be a number"),
        ({"largest": 0}, "largest must be above 0"),
        ({"tails": torch.zeros(3)}, r"tails \(N,\)"),
        ({"rewards": torch.zeros(2, 3)}, r"are \(N, T\)"),
        ({"there": torch.tensor([[False, True], [True, True]])}, "padding stands behind"),
    ],
)
def test_arguments_are_checked(options, message):
    settings = {
        "rewards": torch.zeros(2, 2),
        "values": torch.zeros(2, 2),
        "tails": torch.zeros(2),
        "there": torch.ones(2, 2, dtype=torch.bool),
        "log_ratios": torch.zeros(2, 2),
    }
    with pytest.raises(InvalidArgument, match=message):
        vtrace(**(settings | options))


def test_runs_of_one_task_and_seed_are_each_others_baseline() -> None:
    policy = StoredPolicy.load("cloned")
    alone = episode(policy, seed=9, length=2)
    one, other = (episode(policy, seed=seed, length=length) for seed, length in ((1, 3), (2, 2)))
    twins = [one, replace(other, seed=one.seed)]
    told = torch.tensor([1.0, 2.0, 3.0, 5.0, 10.0, 7.0, 8.0])
    found = round_module._beside_each_other([*twins, alone], told)
    assert found.tolist() == [-2.0, -4.0, 3.0, 2.0, 4.0, 7.0, 8.0]
    assert round_module._beside_each_other([one, other, alone], told).tolist() == told.tolist()
