"""A function that is wrong in anything is told by the name of what is wrong."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import mlp, own
from torch import Tensor, nn

from esper_lightning.tezzeret import Recipe, examine
from esper_lightning.tezzeret.examine import NUM_TRIALS

examining = examine.examine
INIT = "self.norm = nn.BatchNorm1d(shape.output.features)"
FORWARD = "return self.linear(self.norm(x))"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "ROUNDS", 2)
    monkeypatch.setattr(examine, "PAIRS", 3)


@pytest.fixture
def normed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """With buffers, one of them an integer."""
    return own(tmp_path, monkeypatch, module="my_normed", init=INIT, forward=FORWARD)


def run(branch: Any, x: Tensor) -> Tensor:
    out: Tensor = branch(x)
    return out


class Scaled(torch.autograd.Function):
    """A factor on the gradient alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def with_weight(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
    """Runs a ``parallel_mlp`` with another weight in its first layer."""

    def wrong(branch: Any, x: Tensor) -> Tensor:
        weights = dict(branch.named_parameters())
        weights["expand.weight"] = change(weights["expand.weight"])
        out: Tensor = torch.func.functional_call(branch, weights, (x,))
        return out

    return wrong


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("input_requires_grad", [True, False])
def test_nothing_is_wrong_with_the_branch_itself(dtype: str, input_requires_grad: bool) -> None:
    found = examining(mlp(dtype=dtype, input_requires_grad=input_requires_grad), run)
    assert found.wrong == ""
    names = {"output", *(f"gradient of {n}" for n, _ in mlp().build().named_parameters())}
    names |= {"gradient of the input"} if input_requires_grad else set()
    assert set(found.errors) == names
    most = {"float32": 1e-5, "float64": 0.0, "bfloat16": 0.1}[dtype]
    assert max(found.errors.values()) <= most
    assert 0.1 < found.speedup < 10
    assert found.eager_ms > 0
    assert found.compiled_ms > 0


def test_buffers_are_compared_integers_among_them(normed: Recipe) -> None:
    found = examining(normed, run)
    assert found.wrong == ""
    assert {"buffer norm.running_mean", "buffer norm.running_var"} < set(found.errors)
    assert all("num_batches" not in name for name in found.errors)


def test_other_summation_is_within_the_allowance() -> None:
    def reordered(branch: Any, x: Tensor) -> Tensor:
        hidden = torch.nn.functional.gelu(branch.expand(x))
        parts = hidden.unsqueeze(1) * branch.project.weight
        return parts.flip(-1).sum(-1) + branch.project.bias

    assert examining(mlp(), reordered).wrong == ""


FACTORS = {"float32": 1.01, "float64": 1.0 + 1e-6, "bfloat16": 1.2}


@pytest.mark.parametrize("dtype", FACTORS)
def test_an_output_that_is_off(dtype: str) -> None:
    found = examining(mlp(dtype=dtype), lambda branch, x: run(branch, x) * FACTORS[dtype])
    assert found.wrong.startswith("output is off by ")
    assert (found.speedup, found.eager_ms, found.compiled_ms) == (0.0, 0.0, 0.0)
    assert found.errors["output"] == pytest.approx(FACTORS[dtype] - 1, rel=0.1)


@pytest.mark.parametrize("dtype", FACTORS)
def test_a_gradient_of_a_parameter_that_is_scaled(dtype: str) -> None:
    wrong = with_weight(lambda weight: Scaled.apply(weight, FACTORS[dtype]))
    found = examining(mlp(dtype=dtype), wrong)
    assert found.wrong.startswith("gradient of expand.weight is off by ")


def test_a_gradient_of_a_parameter_that_is_detached() -> None:
    found = examining(mlp(), with_weight(Tensor.detach))
    assert found.wrong == "gradient of expand.weight is missing, other than in eager"


def test_a_gradient_that_is_zero() -> None:
    found = examining(mlp(), with_weight(lambda weight: Scaled.apply(weight, 0.0)))
    assert found.wrong.startswith("gradient of expand.weight is off by 1.0e+00 ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite(value: float) -> None:
    found = examining(mlp(), with_weight(lambda weight: Scaled.apply(weight, value)))
    assert re.match(r"gradient of expand\.weight is off by (nan|inf) of its size", found.wrong)
    assert all(0 <= error < 1 for error in found.errors.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite(value: float) -> None:
    found = examining(mlp(), lambda branch, x: run(branch, x) + value)
    assert found.wrong.startswith(f"output is off by {value}")
    assert found.errors == {}


def test_a_gradient_of_the_input_that_is_missing_scaled_or_not_asked_for() -> None:
    assert examining(mlp(), lambda branch, x: run(branch, x.detach())).wrong == (
        "gradient of the input is missing, other than in eager"
    )
    scaled = examining(mlp(), lambda branch, x: run(branch, Scaled.apply(x, 1.01)))
    assert scaled.wrong.startswith("gradient of the input is off by ")
    needing = examining(
        mlp(input_requires_grad=False), lambda branch, x: run(branch, x.requires_grad_())
    )
    assert needing.wrong == "gradient of the input is there, other than in eager"


def test_a_whole_output_that_is_detached() -> None:
    found = examining(mlp(), lambda branch, x: run(branch, x).detach())
    assert found.wrong == "gradient of the input is missing, other than in eager"


def test_an_output_of_another_shape_or_type() -> None:
    wider = examining(mlp(), lambda branch, x: run(branch, x)[:, :1])
    assert wider.wrong.startswith("output is torch.float32 of shape (4, 1), in eager torch.float32")
    narrow = examining(mlp(), lambda branch, x: run(branch, x).bfloat16())
    assert narrow.wrong.startswith("output is torch.bfloat16 of shape (4, 5)")


def test_a_buffer_that_was_changed(normed: Recipe) -> None:
    def skewed(branch: Any, x: Tensor) -> Tensor:
        out = run(branch, x)
        branch.norm.running_mean.data.mul_(1.01)
        return out

    def counted(branch: Any, x: Tensor) -> Tensor:
        out = run(branch, x)
        branch.norm.num_batches_tracked.add_(1)
        return out

    def forgotten(branch: Any, x: Tensor) -> Tensor:
        before = branch.norm.running_var.clone()
        out = run(branch, x)
        branch.norm.running_var.data.copy_(before)
        return out

    assert examining(normed, skewed).wrong.startswith("buffer norm.running_mean is off by ")
    assert examining(normed, counted).wrong == (
        "buffer norm.num_batches_tracked is not the same as in eager"
    )
    assert examining(normed, forgotten).wrong.startswith("buffer norm.running_var is off by ")


def test_what_goes_wrong_only_with_other_weights_is_found() -> None:
    first: list[Tensor] = []

    def remembers(branch: Any, x: Tensor) -> Tensor:
        """Constants of the branch that was compiled first, as if they were baked in."""
        if not first:
            first.append(branch.project.bias.detach().clone())
        return run(branch, x) - branch.project.bias.detach() + first[0]

    assert NUM_TRIALS > 1
    assert examining(mlp(), remembers).wrong.startswith("output is off by ")


def test_a_branch_that_is_random_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = "return nn.functional.dropout(self.linear(x))"
    asked = own(tmp_path, monkeypatch, module="my_dropping", forward=forward)
    assert examining(asked, run).wrong == "output is random, so that it cannot be compared"


def test_a_gradient_that_is_only_rounding_has_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shift for all that a softmax compares has a gradient of 0."""
    init = "self.shift = nn.Parameter(torch.zeros(1))"
    forward = "return torch.softmax(x + self.shift, -1) * x + self.linear(x)"
    asked = own(tmp_path, monkeypatch, module="my_softmax", init=init, forward=forward)

    def reordered(branch: Any, x: Tensor) -> Tensor:
        return run(branch, x.flip(0)).flip(0)

    found = examining(asked, reordered)
    assert found.wrong == ""
    assert found.errors["gradient of shift"] < 1
    monkeypatch.setattr(examine, "SMALL", 0.0)
    assert examining(asked, reordered).errors["gradient of shift"] > 1


def test_slower_code_is_measured_to_be_slower() -> None:
    def slow(branch: Any, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return run(branch, x)

    found = examining(mlp(), slow)
    assert found.wrong == ""
    assert found.speedup < 0.9
    assert found.compiled_ms > 20
    assert found.speedup <= 1.1 * found.eager_ms / found.compiled_ms


def test_the_lowest_round_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    compares, warms = NUM_TRIALS, 3
    seconds = iter([0.1] * (compares + warms) + [0.5] * 3 + [0.8] * 3)

    def eager(branch: Any, x: Tensor) -> Tensor:
        now[0] += 1.0
        return run(branch, x)

    def compiled(branch: Any, x: Tensor) -> Tensor:
        now[0] += next(seconds)
        return run(branch, x)

    monkeypatch.setattr(examine, "_eager", eager)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    found = examining(mlp(), compiled)
    assert found.speedup == pytest.approx(1 / 0.8)
    assert found.eager_ms == pytest.approx(1000)
    assert found.compiled_ms == pytest.approx(650)
