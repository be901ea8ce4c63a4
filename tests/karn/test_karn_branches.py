"""Every blueprint, at its defaults and at the ends of its ranges, in every kind of slot it fits.

Those that are built to do harm have tests of their own.
"""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from esper_lightning.karn import CATALOGUE, Blueprint, Choice, CountableBranch, Range, Tier
from esper_lightning.leyline import (
    Attachment,
    FeatureKind,
    FeatureMap,
    ParameterValue,
    SlotShape,
)

BATCH = 4


def slot(before: tuple[int, ...], after: tuple[int, ...]) -> SlotShape:
    kind = {3: FeatureKind.SPATIAL, 2: FeatureKind.TOKENS, 1: FeatureKind.VECTOR}
    return SlotShape(FeatureMap(kind[len(before)], before), FeatureMap(kind[len(after)], after))


SHAPES = (
    slot((16, 6, 6), (16, 6, 6)),
    slot((3, 7, 5), (6, 7, 5)),
    slot((3, 7, 5), (6, 4, 3)),  # stride 2 with padding
    slot((3, 7, 5), (6, 3, 2)),  # stride 2 without
    slot((2, 9, 4), (1, 3, 4)),  # one channel, a stride for the height only
    slot((1, 7, 7), (2, 5, 5)),  # 5x5 without padding: no stride comes near
    slot((5, 1, 1), (4, 1, 1)),
    slot((1, 1, 1), (1, 1, 1)),
    slot((16,), (16,)),
    slot((7,), (5,)),
    slot((3,), (9,)),
    slot((1,), (1,)),
    slot((6, 8), (6, 8)),
    slot((1, 5), (1, 2)),
    slot((9, 5), (9, 3)),
    slot((4, 4), (4, 7)),
)
ENDS_TRIED = {str(SHAPES[i]) for i in (0, 2, 7, 8, 9, 11, 12, 14)}
"""Where the ends of the ranges are tried as well."""


@dataclass(frozen=True)
class Case:
    blueprint: Blueprint
    shape: SlotShape
    parameters: Mapping[str, ParameterValue]

    def __str__(self) -> str:
        named = ",".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.blueprint.name}-{self.shape}-{named}".replace(" ", "")

    def build(self, *, seed: int = 0) -> CountableBranch:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.blueprint.build(self.shape, self.parameters)

    def batch(self, *, seed: int = 1, batch: int = BATCH) -> Tensor:
        sizes = self.blueprint.branch.reads(self.shape).sizes
        return torch.randn(batch, *sizes, generator=torch.Generator().manual_seed(seed))


def settings(blueprint: Blueprint) -> Iterator[dict[str, ParameterValue]]:
    values: list[tuple[ParameterValue, ...]] = []
    for allowed in blueprint.parameters.values():
        match allowed:
            case Choice():
                values.append(allowed.options)
            case Range():
                values.append(tuple(dict.fromkeys((allowed.low, allowed.default, allowed.high))))
    for combination in itertools.product(*values):
        yield dict(zip(blueprint.parameters, combination, strict=True))


BLUEPRINTS = [row for row in CATALOGUE.values() if row.tier is not Tier.ADVERSARIAL]

CASES = [
    Case(blueprint, shape, parameters)
    for blueprint in BLUEPRINTS
    for shape in SHAPES
    if blueprint.fits(shape)
    for parameters in settings(blueprint)
    if str(shape) in ENDS_TRIED or parameters == blueprint.resolve()
]
DEFAULTS = [case for case in CASES if case.parameters == case.blueprint.resolve()]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_default = pytest.mark.parametrize("case", DEFAULTS, ids=str)


def test_every_blueprint_is_tried_in_several_slots() -> None:
    for blueprint in BLUEPRINTS:
        assert len({str(case.shape) for case in CASES if case.blueprint is blueprint}) >= 3


@every_case
def test_output_has_the_shape_of_the_slot(case: Case) -> None:
    got = tuple(case.build()(case.batch()).shape)
    asked = (BATCH, *case.shape.output.sizes)
    if case.blueprint.attachment is Attachment.SERIES or len(asked) < 4:
        assert got == asked
        return
    # Strides are whole numbers: the slot pools what they leave, and no other would leave less.
    assert got[:2] == asked[:2]
    for before, after, size in zip(case.shape.input.sizes[1:], asked[2:], got[2:], strict=True):
        reachable = [math.ceil(before / stride) for stride in range(1, before + 1)]
        assert abs(size - after) == min(abs(other - after) for other in reachable)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["parallel_conv", "parallel_pointwise", "parallel_inverted"])
def test_a_strided_host_with_padding_is_met_exactly(name: str, stride: int) -> None:
    host = nn.Conv2d(2, 3, 3, stride=stride, padding=1)
    for size in (*range(1, 9), 15, 16, 17):
        x = torch.zeros(1, 2, size, size)
        shape = slot((2, size, size), tuple(host(x).shape[1:]))
        assert tuple(CATALOGUE[name].build(shape)(x).shape[1:]) == shape.output.sizes


@every_case
def test_silent_at_birth(case: Case) -> None:
    branch = case.build()
    assert branch.zero_at_birth
    for training in (True, False):
        assert torch.count_nonzero(branch.train(training)(100 * case.batch())) == 0


def noise(shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def birth(case: Case) -> tuple[CountableBranch, float]:
    """A branch with the gradients of its first loss, and their gain over what came from above."""
    branch = case.build()
    out = branch(case.batch())
    out.retain_grad()
    backward(F.mse_loss(out, noise(out.shape)))
    assert out.grad is not None
    grads = [p.grad for p in branch.parameters() if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads]))
    return branch, float(norm / out.grad.norm())


@every_case
def test_gradient_at_birth_is_neither_zero_nor_explosive(case: Case) -> None:
    branch, gain = birth(case)
    assert all(
        bool(torch.isfinite(p.grad).all()) for p in branch.parameters() if p.grad is not None
    )
    *_, last = [module for module in branch.modules() if list(module.parameters(recurse=False))]
    for name, parameter in last.named_parameters():
        assert parameter.grad is not None, name
        assert torch.count_nonzero(parameter.grad) > 0, name
    # With inputs of unit variance the gain of a healthy last layer is about the root of its fan-in.
    fan_in = last.weight[0].numel() if isinstance(last, nn.Conv1d | nn.Conv2d | nn.Linear) else 1
    assert 0.05 < gain < 2 * math.sqrt(fan_in + 1)


@every_case
def test_after_one_step_every_parameter_learns(case: Case) -> None:
    branch, _ = birth(case)
    with torch.no_grad():
        for parameter in branch.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
                parameter.grad = None
    out = branch(case.batch())
    backward(F.mse_loss(out, noise(out.shape)))
    for name, parameter in branch.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert torch.count_nonzero(parameter.grad) > 0, name


@every_case
def test_a_small_regression_is_learned(case: Case) -> None:
    branch, x = case.build(), case.batch()
    target = noise(branch(x).shape)
    optimizer = torch.optim.Adam(branch.parameters(), lr=0.001)
    losses = []
    for _ in range(6):
        loss = F.mse_loss(branch(x), target)
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@every_case
def test_formulas_are_what_is_built_and_run(case: Case) -> None:
    branch = case.build()
    cost = case.blueprint.cost(case.shape, case.parameters)
    assert cost.parameters == sum(p.numel() for p in branch.parameters() if p.requires_grad)
    # The fused attention of the CPU is counted as nothing: take the one made of matrix products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        branch(case.batch(batch=1))
    assert cost.flops == counter.get_total_flops()


@every_default
def test_same_seed_same_branch(case: Case) -> None:
    one, two, other = case.build(seed=3), case.build(seed=3), case.build(seed=4)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
    drawn = [name for name, value in one.state_dict().items() if value.unique().numel() > 1]
    assert all(not torch.equal(one.state_dict()[n], other.state_dict()[n]) for n in drawn)


def awake(case: Case, *, seed: int = 5) -> CountableBranch:
    """A branch whose weights are all random.

    The ``k``-th parameter of a shape gets the same values in every branch that has one, whatever
    its name and whatever comes between.
    """
    branch = case.build()
    seen: Counter[torch.Size] = Counter()
    with torch.no_grad():
        for parameter in branch.parameters():
            generator = torch.Generator().manual_seed(seed + seen[parameter.shape])
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            seen[parameter.shape] += 1
    return branch


@every_default
def test_state_dict_round_trip(case: Case) -> None:
    branch, x = awake(case), case.batch()
    fresh = case.build(seed=9)
    fresh.load_state_dict(branch.state_dict())
    assert torch.equal(branch(x), fresh(x))
    assert torch.equal(branch(x), copy.deepcopy(branch)(x))


@every_default
def test_forward_leaves_input_and_generator_alone(case: Case) -> None:
    branch, x = awake(case), case.batch()
    before, generator = x.clone(), torch.get_rng_state()
    out = branch.train()(x)
    assert torch.equal(x, before)
    assert x._version == 0
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(out, branch.eval()(x))
    assert not list(branch.buffers())


@every_default
def test_samples_do_not_see_each_other(case: Case) -> None:
    branch, x = awake(case).double(), case.batch().double()
    torch.testing.assert_close(branch(x)[1:2], branch(x[1:2]))


@every_default
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(case: Case, dtype: torch.dtype) -> None:
    branch, x = awake(case).to(dtype), case.batch().to(dtype)
    out = branch(x)
    backward(out.float().square().mean())
    assert out.dtype is dtype
    assert bool(torch.isfinite(out).all())
    assert all(
        p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in branch.parameters()
    )


@pytest.mark.parametrize("case", [c for c in CASES if c.batch().ndim == 3], ids=str)
def test_no_token_looks_ahead(case: Case) -> None:
    """On a causal host a branch must not tell a token of those behind it."""
    branch, x = awake(case).double(), case.batch().double()
    before = branch(x)
    for first in range(1, x.shape[1]):
        changed = x.clone()
        changed[:, first:] += 1 + noise(changed[:, first:].shape)
        after = branch(changed)
        torch.testing.assert_close(after[:, :first], before[:, :first], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, first:], before[:, first:])


def test_causal_branches_look_back() -> None:
    """They are no pointwise branches in disguise: a token hears of the one before it."""
    for case in DEFAULTS:
        if case.blueprint.name in ("causal_conv", "token_attention"):
            branch, x = awake(case).double(), case.batch().double()
            changed = x.clone()
            changed[:, 0] += 1 + noise(changed[:, 0].shape)
            assert not torch.allclose(branch(changed)[:, 1], branch(x)[:, 1])


@pytest.mark.parametrize("case", [c for c in DEFAULTS if c.batch().ndim == 4], ids=str)
def test_channels_last_is_the_same(case: Case) -> None:
    branch, x = awake(case).double(), case.batch().double()
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        taken = x.detach().clone(memory_format=layout).requires_grad_()
        branch.zero_grad()
        out = branch(taken)
        backward((out * noise(out.shape).double()).sum())
        found.append([out, taken.grad, *(p.grad for p in branch.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("case", [c for c in DEFAULTS if c.batch().ndim == 4], ids=str)
def test_channels_last_without_a_gradient_of_the_input(case: Case) -> None:
    """As in a seed whose gradients are isolated: torch's group norm would end the process."""
    x = case.batch()
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        branch = awake(case)
        out = branch(x.clone(memory_format=layout))
        backward((out * noise(out.shape)).sum())
        found.append([p.grad for p in branch.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@every_default
def test_autocast_does_not_promote_the_host(case: Case) -> None:
    branch, x = awake(case), case.batch().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = branch(x)
    assert out.dtype is torch.bfloat16
    assert bool(torch.isfinite(out).all())


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records what a forward pass runs: each operator, of convolutions all but the widths."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ran: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        step: tuple[Any, ...] = (str(func),)
        if func is torch.ops.aten.convolution.default:
            _, weight, bias, stride, _, dilation, *_ = args
            depthwise = weight.shape[1] == 1
            step += (*weight.shape[2:], bias is None, *stride, *dilation, depthwise)
        self.ran.append(step)
        return func(*args, **(kwargs or {}))


COMMON = (slot((16, 6, 6), (16, 6, 6)), slot((16,), (16,)), slot((6, 8), (6, 8)))


@pytest.mark.parametrize("shape", COMMON, ids=str)
def test_no_two_are_the_same_architecture(shape: SlotShape) -> None:
    """Not the same operators in the same order at the same attachment, whatever the widths."""
    found: dict[Any, str] = {}
    for case in DEFAULTS:
        if case.shape != shape:
            continue
        with Operators() as operators:
            case.build()(case.batch())
        key = (case.blueprint.attachment, *operators.ran)
        assert key not in found, f"{case.blueprint.name} is {found.get(key)}"
        found[key] = case.blueprint.name
    assert len(found) >= 6


@pytest.mark.parametrize("shape", COMMON, ids=str)
def test_no_two_compute_the_same(shape: SlotShape) -> None:
    """Not the same function of the input, given parameters of the same shapes and values."""
    cases = [case for case in DEFAULTS if case.shape == shape]
    for one, two in itertools.combinations(cases, 2):
        if one.blueprint.attachment is two.blueprint.attachment:
            assert not torch.allclose(awake(one)(one.batch()), awake(two)(two.batch()))
