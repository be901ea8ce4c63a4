"""Branches along a sequence against their definitions, on sequences of several chunks."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from esper_lightning.karn import CountableBranch, get
from esper_lightning.leyline import FeatureKind, FeatureMap, InvalidArgument, SlotShape

LENGTHS = (4, 63, 64, 65, 200)
"""In tokens: one chunk of linear attention has 64."""


def built(name: str, tokens: int, **parameters: float) -> CountableBranch:
    """For 6 features to 5, in float64, with weights that are all random."""
    shape = slot(tokens)
    torch.manual_seed(0)
    branch = get(name).build(shape, parameters).double()
    for parameter in branch.parameters():
        nn.init.normal_(parameter, std=0.5)
    return branch


def slot(tokens: int) -> SlotShape:
    before, after = (FeatureMap(FeatureKind.TOKENS, (tokens, width)) for width in (6, 5))
    return SlotShape(before, after)


def sequence(tokens: int) -> Tensor:
    return torch.randn(3, tokens, 6, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("tokens", LENGTHS)
def test_linear_attention_is_a_running_sum(tokens: int) -> None:
    branch, x = built("token_linear_attention", tokens, num_heads=2), sequence(tokens)
    heads = branch.query_key_value(branch.norm(x)).unflatten(-1, (3, 2, -1))
    query, key, value = heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]
    query, key = F.elu(query) + 1, F.elu(key) + 1
    total = torch.zeros(3, 2, query.shape[-1], query.shape[-1]).double()
    divisor = torch.zeros(3, 2, query.shape[-1]).double()
    expected = []
    for token in range(tokens):
        total = total + key[:, token, :, :, None] * value[:, token, :, None]
        divisor = divisor + key[:, token]
        numerator = (query[:, token, :, :, None] * total).sum(-2)
        expected.append(numerator / (query[:, token] * divisor).sum(-1, keepdim=True))
    expected_output = branch.project(torch.stack(expected, dim=1).flatten(-2))
    torch.testing.assert_close(branch(x), expected_output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_long_sums_keep_the_precision_of_half_types(dtype: torch.dtype) -> None:
    branch, x = built("token_linear_attention", 4096), sequence(4096)
    expected = branch(x)
    error = branch.to(dtype)(x.to(dtype)).double() - expected
    assert error.norm() < 4 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("name", ["token_linear_attention", "token_gating", "diagonal_ssm"])
def test_formulas_hold_over_several_chunks(name: str, tokens: int) -> None:
    branch, cost = built(name, tokens), get(name).cost(slot(tokens))
    assert cost.parameters == sum(parameter.numel() for parameter in branch.parameters())
    with FlopCounterMode(display=False) as counter:
        branch(sequence(tokens)[:1])
    assert cost.flops == counter.get_total_flops()


@pytest.mark.parametrize("name", ["token_linear_attention", "token_gating", "diagonal_ssm"])
def test_a_shorter_sequence_is_a_beginning(name: str) -> None:
    branch, x = built(name, 200), sequence(200)
    for tokens in (1, 5, 64, 130):
        torch.testing.assert_close(branch(x[:, :tokens]), branch(x)[:, :tokens])


@pytest.mark.parametrize("name", ["token_linear_attention", "token_gating", "diagonal_ssm"])
def test_the_last_token_hears_the_first(name: str) -> None:
    branch, x = built(name, 70), sequence(70)
    changed = x.clone()
    changed[:, 0] = -changed[:, 0]
    assert not torch.allclose(branch(changed)[:, -1], branch(x)[:, -1], rtol=0, atol=1e-9)


def test_gating_mixes_with_a_lower_triangular_matrix() -> None:
    branch, x = built("token_gating", 7), sequence(7)
    matrix = torch.zeros(7, 7).double()
    matrix[tuple(torch.tril_indices(7, 7))] = branch.mix.detach()
    passed, gate = F.gelu(branch.expand(branch.norm(x))).chunk(2, dim=-1)
    mixed = torch.einsum("ts,bsd->btd", matrix, branch.gate_norm(gate))
    expected = branch.project(passed * (mixed + branch.mix_bias[:, None]))
    torch.testing.assert_close(branch(x), expected)


def test_gating_takes_no_more_tokens_than_it_was_built_for() -> None:
    branch = get("token_gating").build(slot(6))
    with pytest.raises(InvalidArgument, match="built for 6 tokens and got 7; it takes as many or"):
        branch(torch.zeros(2, 7, 6))
    assert get("token_gating").fits(slot(1024))
    assert not get("token_gating").fits(slot(1025))


def test_gating_passes_everything_at_birth() -> None:
    torch.manual_seed(0)
    branch = get("token_gating").build(slot(64))
    gate = branch._matrix(64) @ torch.randn(64, 20) + branch.mix_bias[:, None]
    assert (gate - 1).abs().max() < 0.1


def test_a_state_space_is_its_recurrence() -> None:
    branch, x = built("diagonal_ssm", 50, num_states=4), sequence(50)
    step, decay = branch.log_step.exp(), 0.5 * branch.log_decay.exp()
    rate = torch.complex(-decay, math.pi * torch.arange(4) + branch.frequency)
    keep = (step * rate).exp()
    taken, read = (keep - 1) / rate, torch.complex(*branch.read)
    u = branch.expand(branch.norm(x))
    state, outputs = torch.zeros(3, 5, 4, dtype=torch.complex128), []
    for token in range(50):
        state = keep * state + taken * u[:, token, :, None]
        outputs.append(2 * (read * state).sum(-1).real + branch.skip * u[:, token])
    expected = branch.project(F.gelu(torch.stack(outputs, dim=1)))
    torch.testing.assert_close(branch(x), expected)


def test_a_state_space_begins_with_the_frequencies_of_s4d_lin() -> None:
    torch.manual_seed(0)
    branch = get("diagonal_ssm").build(slot(50))
    assert torch.count_nonzero(branch.log_decay) == torch.count_nonzero(branch.frequency) == 0
    assert branch.log_step.exp().min() >= 0.001
    assert branch.log_step.exp().max() <= 0.1
