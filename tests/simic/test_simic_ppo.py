"""The loss of PPO beside an implementation that shares nothing with it."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampled_episodes import episodes

from esper_lightning.simic.learning import (
    PPOConfig,
    collate,
    evaluate,
    explained_variance,
    kl,
    ppo,
)
from esper_lightning.simic.learning.round import begin, see, tell
from esper_lightning.tamiyo.learned import Architecture, PolicyNetwork, StoredPolicy

BASE = StoredPolicy.load("cloned")
CONFIGS = [
    PPOConfig(),
    PPOConfig(ratio=0.02, value_weight=1.0, entropy_weight=0.0),
    PPOConfig(ratio=0.1, value=0.05, value_weight=0.7, entropy_weight=0.02, base_weight=0.3),
]


def by_hand(network, steps, numbers, config):
    """Boundary by boundary, with branches where the loss has minima and clamps.

    The network is asked for one boundary at a time, by the method that cloning uses.
    """
    total = torch.zeros((), dtype=torch.float64)
    for step, (logged, advantage, target, before, weight, base) in zip(steps, numbers, strict=True):
        told = network.evaluate([step.observation], [step.actions])
        own = told.log_probabilities[0].sum()
        ratio = torch.exp(own) / math.exp(logged)
        low, high = 1 - config.ratio, 1 + config.ratio
        if (advantage > 0 and ratio > high) or (advantage < 0 and ratio < low):
            surrogate = torch.tensor(advantage * (high if advantage > 0 else low))
        else:
            surrogate = advantage * ratio
        value = told.values[0]
        error = (value - target) ** 2
        if config.value is not None and abs(value.item() - before) > config.value:
            edge = before + math.copysign(config.value, value.item() - before)
            if (edge - target) ** 2 > error.item():
                error = torch.tensor((edge - target) ** 2)
        other = torch.exp(base - own)
        apart = other - 1 - (base - own)
        total = total + weight * (
            -surrogate
            + config.value_weight * 0.5 * error
            - config.entropy_weight * told.entropies[0].sum()
            + config.base_weight * apart
        )
    return total / len(steps)


@pytest.fixture(scope="module")
def fixed():
    """A fixed batch of a double-precision network that moved away from the policy that chose."""
    found = episodes(BASE, 8)
    steps = [step for each in found for step in each.steps]
    network = copy.deepcopy(BASE.network).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.01 * noise)
    numbers = [
        (
            step.log_probability + 0.2 * torch.randn((), generator=generator).item(),
            *(torch.randn(3, generator=generator, dtype=torch.float64) * 0.5).tolist(),
            *(2 * torch.rand(1, generator=generator, dtype=torch.float64)).tolist(),
            step.log_probability - 0.1 * torch.rand((), generator=generator).item(),
        )
        for step in steps
    ]
    return network.requires_grad_(True), steps, numbers


@pytest.mark.parametrize("config", CONFIGS)
def test_loss_and_every_gradient_are_those_of_an_independent_implementation(fixed, config):
    network, steps, numbers = fixed
    rows = collate([step.observation for step in steps], [step.actions for step in steps])
    told = evaluate(network, rows.seen, rows.chosen, rows.there)
    logged, advantages, returns, before, weights, base = torch.tensor(
        numbers, dtype=torch.float64
    ).T
    terms = ppo(
        told.log_probabilities,
        told.entropies,
        told.values,
        logged=logged,
        advantages=advantages,
        returns=returns,
        before=before,
        base=base,
        weights=weights,
        config=config,
    )
    own = torch.autograd.grad(terms.loss, list(network.parameters()), allow_unused=True)
    loss = by_hand(network, steps, numbers, config)
    expected = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    assert told.values.dtype is torch.float64
    assert terms.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    compared = 0
    for (name, _), one, other in zip(network.named_parameters(), own, expected, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            apart = (one - other).norm()
            assert apart <= 1e-6 * other.norm() + 1e-12, name
            compared += one.numel()
    assert compared > 150_000


def test_the_fixed_batch_tries_every_branch(fixed):
    """Ratios on both sides of what counts, advantages of both signs, values within and without."""
    network, steps, numbers = fixed
    config = CONFIGS[2]
    seen = set()
    for step, (logged, advantage, _, before, _, _) in zip(steps, numbers, strict=True):
        told = network.evaluate([step.observation], [step.actions])
        ratio = math.exp(told.log_probabilities[0].sum().item() - logged)
        side = "low" if ratio < 1 - config.ratio else "high" if ratio > 1 + config.ratio else "in"
        seen.add((side, advantage > 0))
        seen.add(abs(told.values[0].item() - before) > 0.05)
    assert seen >= {(side, sign) for side in ("low", "in", "high") for sign in (True, False)}
    assert seen >= {True, False}


def test_gradients_are_those_of_finite_differences(fixed):
    """Of the loss with its own values, on a few weights of each part."""
    network, steps, numbers = fixed
    rows = collate([step.observation for step in steps], [step.actions for step in steps])
    logged, advantages, returns, before, weights, base = torch.tensor(
        numbers, dtype=torch.float64
    ).T
    config = CONFIGS[2]

    def loss():
        told = evaluate(network, rows.seen, rows.chosen, rows.there)
        return ppo(
            told.log_probabilities,
            told.entropies,
            told.values,
            logged=logged,
            advantages=advantages,
            returns=returns,
            before=before,
            base=base,
            weights=weights,
            config=config,
        ).loss

    names = ("encoder.blocks.1.expand.weight", "decoder.kind.bias", "value.weight")
    for name in names:
        parameter = network.get_parameter(name)
        gradient = torch.autograd.grad(loss(), parameter)[0]
        place = tuple(int(i) for i in (gradient.abs() == gradient.abs().max()).nonzero()[0])
        told = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                kept = parameter[place].item()
                parameter[place] += step
                told.append(loss().item())
                parameter[place] = kept
        assert (told[0] - told[1]) / 2e-6 == pytest.approx(gradient[place].item(), rel=1e-4)


def test_many_at_once_are_each_alone():
    """What cloning and acting use says the same as what PPO uses, padded and in one batch."""
    found = episodes(BASE, 12)
    steps = [step for each in found for step in each.steps]
    told = BASE.network.evaluate(
        [step.observation for step in steps], [step.actions for step in steps]
    )
    own = tell(BASE.network, see(found).rows)
    torch.testing.assert_close(
        own.log_probabilities[: len(steps)], told.log_probabilities.sum(dim=1), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        own.entropies[: len(steps)], told.entropies.sum(dim=1), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(own.values[: len(steps)], told.values, atol=1e-5, rtol=1e-5)
    logged = torch.tensor([step.log_probability for step in steps])
    torch.testing.assert_close(own.log_probabilities[: len(steps)], logged, atol=1e-4, rtol=1e-4)


def test_before_the_first_step_the_surrogate_is_the_mean_advantage():
    """Ratios are 1: nothing is clipped, and the divergence from the base is 0."""
    found = episodes(BASE, 6)
    seen = see(found)
    own = tell(BASE.network, seen.rows)
    made = begin(found, seen, own, own, discount=1.0, decay=0.95)
    num = len(made)
    terms = ppo(
        own.log_probabilities[:num],
        own.entropies[:num],
        own.values[:num],
        logged=made.start,
        advantages=made.advantages,
        returns=made.returns,
        before=made.before,
        base=made.base,
        weights=made.weights,
        config=PPOConfig(value=0.2),
    )
    assert terms.policy.item() == pytest.approx(-made.advantages.mean().item(), abs=1e-6)
    assert terms.clipped.item() == terms.base.item() == 0
    assert terms.value.item() == pytest.approx(
        0.5 * (made.before - made.returns).square().mean().item()
    )


@given(st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0)), min_size=1, max_size=9))
def test_a_divergence_is_never_negative(pairs):
    own, other = torch.tensor(pairs, dtype=torch.float64).T
    assert kl(own, other) >= 0
    assert kl(own, own) == 0


def test_the_divergence_is_that_of_the_distributions():
    """Over all outcomes, weighted as ``own`` has them."""
    own = torch.tensor([0.5, 0.3, 0.2]).double()
    other = torch.tensor([0.2, 0.2, 0.6]).double()
    drawn = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    exact = (own * (own / other).log()).sum()
    assert kl(own.log()[drawn], other.log()[drawn]).item() == pytest.approx(exact.item())


def test_explained_variance():
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((3,), 2.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) < 0
    assert math.isnan(explained_variance(returns, torch.ones(3)))


def test_only_the_layers_that_a_minibatch_needs_are_padded():
    found = episodes(BASE, 3)
    rows = see(found).rows
    few = rows.take(torch.tensor([len(rows) - 1]))
    assert few.chosen.shape == (1, 1, 4)
    assert few.there.tolist() == [[True]]


def test_a_small_network_is_evaluated_the_same_way():
    """Another architecture, drawn at random, so that no weight is 0 by training."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = PolicyNetwork(Architecture(width=16, depth=1, heads=2))
    policy = StoredPolicy.of(network, name="small", version=1)
    found = episodes(policy, 4)
    steps = [step for each in found for step in each.steps]
    assert max(len(step.actions) for step in steps) > 2
    logged = torch.tensor([step.log_probability for step in steps])
    own = tell(policy.network, see(found).rows).log_probabilities[: len(steps)]
    torch.testing.assert_close(own, logged, atol=1e-4, rtol=1e-4)
