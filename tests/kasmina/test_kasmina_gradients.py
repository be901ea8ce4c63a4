"""Gradients of seeds: dropped when one is bad, clipped as torch would, and never made larger."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esper_lightning.kasmina.gradients import (
    clip_norm,
    clip_value,
    drop_if_not_finite,
    gradients_of,
    total_norm,
)

elements = st.floats(-1024, 1024, width=32)
gradients = st.lists(st.lists(elements, min_size=1, max_size=5), min_size=1, max_size=4).map(
    lambda lists: [torch.tensor(values) for values in lists]
)


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def cloned(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def test_the_gradients_that_are_there_in_the_order_of_the_parameters() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    assert gradients_of(module) == []
    module[1](torch.ones(1, 2)).sum().backward()
    assert [g is p.grad for g, p in zip(gradients_of(module), module[1].parameters(), strict=True)]
    assert len(gradients_of(module)) == 2


def test_norms_by_hand() -> None:
    found = [torch.tensor([[3.0, 0.0]]), torch.tensor([0.0, 4.0])]
    assert float(total_norm(found)) == 5.0
    assert total_norm(found).shape == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_norms_are_float32_whatever_the_gradients(dtype: torch.dtype) -> None:
    found = [torch.tensor([3.0], dtype=dtype), torch.tensor([4.0])]
    assert total_norm(found).dtype is torch.float32
    assert float(total_norm(found)) == 5.0


@settings(deadline=None)
@given(gradients)
def test_norms_are_those_of_all_elements_together(found: list[Tensor]) -> None:
    norm = float(flat(found).double().norm())
    # The square of anything smaller is 0 in float32.
    assert float(total_norm(found)) == pytest.approx(norm, rel=1e-5, abs=1e-18)


@settings(deadline=None)
@given(gradients)
def test_finite_gradients_are_left_bit_for_bit(found: list[Tensor]) -> None:
    before = cloned(found)
    assert float(drop_if_not_finite(found)) == 0.0
    assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True))


@settings(deadline=None)
@given(found=gradients, bad=st.sampled_from([math.nan, math.inf, -math.inf]), data=st.data())
def test_one_bad_element_drops_them_all(
    found: list[Tensor], bad: float, data: st.DataObject
) -> None:
    where = data.draw(st.sampled_from(found))
    where[data.draw(st.integers(0, where.numel() - 1))] = bad
    dropped = drop_if_not_finite(found)
    assert dropped.shape == ()
    assert float(dropped) == 1.0
    assert all(torch.equal(tensor, torch.zeros_like(tensor)) for tensor in found)


def test_a_norm_that_overflows_drops_them_too() -> None:
    found = [torch.full((4,), 1e30)]
    assert float(drop_if_not_finite(found)) == 1.0
    assert float(found[0].abs().max()) == 0.0


@settings(deadline=None)
@given(found=gradients, max_norm=st.floats(1e-3, 1e4))
def test_clipping_by_norm_is_torchs_own(found: list[Tensor], max_norm: float) -> None:
    parameters = [nn.Parameter(torch.zeros_like(tensor)) for tensor in found]
    for parameter, tensor in zip(parameters, found, strict=True):
        parameter.grad = tensor.clone()
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    clip_norm(found, max_norm)
    for parameter, tensor in zip(parameters, found, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(tensor, parameter.grad, rtol=1e-6, atol=1e-30)


@settings(deadline=None)
@given(found=gradients, max_norm=st.floats(0, 1e4))
def test_clipping_by_norm_never_makes_larger_and_keeps_the_direction(
    found: list[Tensor], max_norm: float
) -> None:
    before = flat(found).clone()
    clip_norm(found, max_norm)
    after = flat(found)
    # In float64: squares of small numbers are below float32's normal range.
    norm = float(total_norm([tensor.double() for tensor in found]))
    assert norm <= max_norm * (1 + 1e-5) + 1e-30
    assert bool((after.abs() <= before.abs()).all())
    assert bool((after * before >= 0).all())
    if float(before.double().norm()) + 1e-6 < max_norm * (1 - 1e-5):
        assert torch.equal(after, before)


@settings(deadline=None)
@given(found=gradients, limit=st.floats(0, 2048, width=32))
def test_clipping_by_value_is_torchs_own(found: list[Tensor], limit: float) -> None:
    expected = [tensor.clamp(-limit, limit) for tensor in found]
    clip_value(found, limit)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_all_work_is_done_in_place_on_the_gradients_themselves() -> None:
    module = nn.Linear(3, 2)
    module(torch.full((1, 3), 100.0)).sum().backward()
    held = [parameter.grad for parameter in module.parameters()]
    clip_norm(gradients_of(module), 1.0)
    clip_value(gradients_of(module), 0.1)
    drop_if_not_finite(gradients_of(module))
    assert all(p.grad is tensor for p, tensor in zip(module.parameters(), held, strict=True))
    assert float(total_norm(gradients_of(module))) <= 1.0
