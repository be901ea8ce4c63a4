"""Compiled beside eager: does it give the same, and is it faster?"""

import copy
import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec
import torch
from torch import Tensor

from esper_lightning.karn import CountableBranch
from esper_lightning.tezzeret.recipe import Recipe

Function = Callable[[CountableBranch, Tensor], Tensor]

NUM_TRIALS = 3
"""Branches with weights of their own that are compared."""

SLACK = 8.0
"""The error of compiled code may be so many times that of eager, both against float64."""

FLOOR = 0.3
"""And always so much of the square root of the type's precision: 1e-4 in float32. Sums over many
rows, in another order, come to 1e-6; what was compiled wrongly is off by its own size."""

SMALL = 1e-4
"""A gradient that is so small beside the largest of a branch is measured on that scale: what is 0
but for rounding, as that of the bias of keys in attention, has no size of its own."""

_GRADIENT = "gradient of "

ROUNDS, PAIRS = 3, 30
"""Interleaved runs: the gate takes the median of each round, and the lowest of the rounds."""

MAX_ROUND_S = 5.0


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found.

    Attributes:
        wrong: what differs from eager by too much, in words; empty when nothing does.
        errors: by tensor, the largest error against float64 over the largest value.
        speedup: eager over compiled, forward and backward; of the slowest round.
        eager_ms: median of an eager forward and backward pass.
        compiled_ms: of a compiled one.
    """

    wrong: str
    errors: dict[str, float]
    speedup: float = 0.0
    eager_ms: float = 0.0
    compiled_ms: float = 0.0


def examine(asked: Recipe, compiled: Function) -> Examination:
    """Compare outputs, every gradient and buffers; where they agree, measure."""
    errors: dict[str, float] = {}
    for seed in range(NUM_TRIALS):
        wrong = _compare(asked, compiled, seed, errors)
        if wrong:
            return Examination(wrong=wrong, errors=errors)
    eager_ms, compiled_ms, speedup = _race(asked, compiled)
    return Examination(
        wrong="",
        errors=errors,
        speedup=speedup,
        eager_ms=eager_ms,
        compiled_ms=compiled_ms,
    )


def _compare(asked: Recipe, compiled: Function, seed: int, errors: dict[str, float]) -> str:
    branch = _awake(asked, seed)
    exact = _run(copy.deepcopy(branch).double(), asked.input(seed=seed).double(), _eager, seed)
    eager = _run(copy.deepcopy(branch), asked.input(seed=seed), _eager, seed)
    again = _run(copy.deepcopy(branch), asked.input(seed=seed), _eager, seed)
    found = _run(branch, asked.input(seed=seed), compiled, seed)
    gradients = [value for name, value in exact.items() if name.startswith(_GRADIENT)]
    largest = max(map(_size, gradients), default=0.0)
    for name in {**eager, **found}:
        if name not in found or name not in eager:
            return f"{name} is {'there' if name in found else 'missing'}, other than in eager"
        expected, given = eager[name], found[name]
        if (given.shape, given.dtype) != (expected.shape, expected.dtype):
            return (
                f"{name} is {given.dtype} of shape {tuple(given.shape)}, in eager "
                f"{expected.dtype} of shape {tuple(expected.shape)}"
            )
        if not (given.is_floating_point() and given.numel()):
            if not torch.equal(given, expected):
                return f"{name} is not the same as in eager"
            continue
        truth = exact[name].double()
        size = max(_size(truth), SMALL * largest * name.startswith(_GRADIENT), 1e-30)
        own, other = (_size(each.double() - truth) / size for each in (expected, given))
        if math.isfinite(other):
            errors[name] = max(errors.get(name, 0.0), other)
        floor = FLOOR * math.sqrt(torch.finfo(given.dtype).eps)
        if _size(again[name] - expected) > floor * size:
            return f"{name} is random, so that it cannot be compared"
        if not other <= max(SLACK * own, floor):  # NaN is not
            return f"{name} is off by {other:.1e} of its size, eager by {own:.1e}"
    return ""


def _size(value: Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0


def _eager(branch: CountableBranch, x: Tensor) -> Tensor:
    out: Tensor = branch(x)
    return out


def _awake(asked: Recipe, seed: int) -> CountableBranch:
    """A branch none of whose weights is 0, so that nothing is silent."""
    branch = asked.build()
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter in branch.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * drawn.to(parameter))
    return branch


def _run(branch: CountableBranch, x: Tensor, run: Function, seed: int) -> dict[str, Tensor]:
    x = x.detach().requires_grad_(x.requires_grad)
    out = run(branch, x)
    generator = torch.Generator().manual_seed(2000 + seed)
    gradient = torch.randn(out.shape, generator=generator).to(out)
    for is_kept in (True, False) if out.requires_grad else ():
        torch.autograd.backward(out, gradient, retain_graph=is_kept)
    found: dict[str, Any] = {"output": out.detach(), f"{_GRADIENT}the input": x.grad}
    found |= {f"{_GRADIENT}{name}": p.grad for name, p in branch.named_parameters()}
    found |= {f"buffer {name}": buffer for name, buffer in branch.named_buffers()}
    return {name: value for name, value in found.items() if value is not None}


def _race(asked: Recipe, compiled: Function) -> tuple[float, float, float]:
    branch, x = _awake(asked, 0), asked.input()
    gradient = torch.randn_like(branch(x))
    on_gpu = asked.device == "cuda"

    def timed(run: Function) -> float:
        if on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        torch.autograd.backward(run(branch, x), gradient)
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for _ in range(3):
        timed(_eager)
        timed(compiled)
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        pairs: list[tuple[float, float]] = []
        while len(pairs) < PAIRS and (len(pairs) < 3 or time.perf_counter() - began < MAX_ROUND_S):
            pairs.append((timed(_eager), timed(compiled)))
        rounds.append((median(p[0] for p in pairs), median(p[1] for p in pairs)))
    eager_ms, compiled_ms = (1e3 * median(times) for times in zip(*rounds, strict=True))
    return eager_ms, compiled_ms, min(eager / quick for eager, quick in rounds)
