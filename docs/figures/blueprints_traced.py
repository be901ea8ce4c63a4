"""What a branch computes, as a graph of its operations, found by running it once.

Every call of torch is seen, with its true sizes, whatever control flow led to it. Left out are
those that only move numbers, those whose result is not used, and those that see no data, such as
the making of a kernel from parameters: the operation that uses it names them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from esper_lightning.karn import CountableBranch
from esper_lightning.leyline import FeatureMap

MOVES = """flatten unflatten reshape view transpose permute movedim squeeze unsqueeze expand unbind
chunk split pad roll unfold __getitem__ T mT real imag complex view_as_complex view_as_real
contiguous clone to float"""
"""What moves numbers and changes none."""

CONSTANTS = "zeros_like ones_like new_zeros new_ones new_full"
"""What is made after a tensor, and not of its numbers."""

TIMES, MINUS, BY = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}", "\N{DIVISION SIGN}"
SIGNS = {
    **dict.fromkeys(("add", "radd"), "+"),
    **dict.fromkeys(("sub", "rsub"), MINUS),
    **dict.fromkeys(("mul", "rmul"), TIMES),
    **dict.fromkeys(("div", "truediv", "rdiv", "rtruediv"), BY),
}

NAMES = {
    "detach": "stop gradient",
    "fft_rfft": "FFT",
    "fft_rfft2": "FFT",
    "fft_irfft": "inverse FFT",
    "fft_irfft2": "inverse FFT",
    "gelu": "GELU",
    "relu": "ReLU",
    "silu": "SiLU",
    "cat": "concat",
    "cumsum": "running sum",
    "tril": "causal mask",
    "amax": "max",
    "normalize": "unit length",
    "neg": "negate",
    "avg_pool2d": "average pool",
    "group_norm": "group norm",
    "layer_norm": "layer norm",
    "rms_norm": "RMS norm",
}
"""Where the picture says another word than torch."""


@dataclass(eq=False)
class Step:
    """One operation.

    Attributes:
        title: what it is.
        detail: its sizes, below the title.
        inputs: what it reads; empty for the input of the branch.
        learned: it uses parameters.
        silent: those are all 0, as in the last layer at birth.
        times: how often it is done, where that is to parts of one tensor, or again and again.
    """

    title: str
    detail: str = ""
    inputs: list["Step"] = field(default_factory=list)
    learned: bool = False
    silent: bool = False
    times: int = 1


@dataclass(frozen=True)
class _Value:
    """Where a tensor comes from: a step, or else parameters (or nothing) alone."""

    step: Step | None = None
    parameters: frozenset[str] = frozenset()


def traced(branch: CountableBranch, reads: FeatureMap, name: str) -> Step:
    """The last step of a branch; the others are its inputs, and theirs.

    Args:
        branch: at birth.
        reads: the feature map that it is given.
        name: of its input.
    """
    x = torch.randn(2, *reads.sizes, generator=torch.Generator().manual_seed(0))
    recorder = _Recorder(branch, x, Step(name))
    with recorder:
        out = branch(x)
    last = recorder.origin(out).step
    assert last is not None
    return last


def steps(last: Step) -> list[Step]:
    """All steps that lead to ``last``, each after what it reads."""
    found: dict[Step, None] = {}

    def visit(step: Step) -> None:
        if step not in found:
            for each in step.inputs:
                visit(each)
            found[step] = None

    visit(last)
    return list(found)


def sizes(numbers: Iterable[int]) -> str:
    """Sizes as pictures and cards write them: with a cross between them."""
    return TIMES.join(map(str, numbers))


class _Recorder(TorchFunctionMode):
    """Follows tensors from the input of a branch, through every call of torch."""

    def __init__(self, branch: CountableBranch, x: Tensor, begin: Step) -> None:
        super().__init__()
        self._values = {
            id(parameter): _Value(parameters=frozenset({name.removesuffix(".weight")}))
            for name, parameter in branch.named_parameters()
        }
        self._values[id(x)] = _Value(begin)
        self._known: dict[Any, Step] = {}
        self._alive: list[Any] = []  # what is dropped could leave its id to another

    def origin(self, tensor: Tensor) -> _Value:
        """Where ``tensor`` comes from."""
        return self._values.get(id(tensor), _Value())

    def __torch_function__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        results = list(_tensors(out))
        if results:
            value = self._value(_name(func), args, kwargs or {}, results[0])
            self._values |= {id(result): value for result in results}
            self._alive.append(out)
        return out

    def _value(self, name: str, args: Any, kwargs: Any, out: Tensor) -> _Value:
        origins = [self.origin(each) for each in _tensors((args, kwargs))]
        inputs = list(dict.fromkeys(each.step for each in origins if each.step is not None))
        parameters = frozenset[str]().union(*(each.parameters for each in origins))
        if name == "randn_like":
            return _Value(parameters=frozenset({"noise"}))
        if name in CONSTANTS.split():
            return _Value()
        if not inputs:
            return _Value(parameters=parameters)
        if name in MOVES.split():
            return _Value(inputs[0])
        step = self._step(name, args, kwargs, out)
        if step.title in ("+ 0", "+ itself"):
            # Nothing is added, or parts that one step made.
            return _Value(inputs[0])
        step.inputs = inputs
        numbers = [each for each in (*args, *kwargs.values()) if isinstance(each, int | float)]
        key = (step.title, step.detail, *map(id, inputs), parameters, *numbers)
        if key in self._known:
            self._known[key].times += 1
        return _Value(self._known.setdefault(key, step))

    def _step(self, name: str, args: Any, kwargs: Any, out: Tensor) -> Step:
        given = list(_tensors((args, kwargs)))
        made = [each for each in given if self.origin(each).parameters - {"noise"}]
        step = Step(NAMES.get(name, name), learned=bool(made))
        step.silent = step.learned and not any(torch.count_nonzero(each) for each in made)
        match name:
            case "linear" | "conv1d" | "conv2d":
                title, detail = _weighted(name, args, kwargs)
                step.title, step.detail = title, detail if made else "kernel of its own"
            case "group_norm":
                step.detail = "1 group" if args[1] == 1 else f"{args[1]} groups"
            case "layer_norm" | "rms_norm":
                step.detail = f"over {math.prod(args[1])}"
            case "mean" | "amax" | "avg_pool2d":
                step.detail = sizes(out.shape[1:])
            case "clamp":
                step.detail = ", ".join(f"{end} {value:g}" for end, value in kwargs.items())
            case "scaled_dot_product_attention":
                step.title = "causal attention" if kwargs.get("is_causal") else "attention"
                step.detail = f"{out.shape[1]} heads of {out.shape[3]}"
            case _ if name in SIGNS:
                step.title = self._arithmetic(name, args[:2])
            case _ if made:
                step.detail = self._named(made[0])
        return step

    def _arithmetic(self, name: str, pair: tuple[Any, Any]) -> str:
        """The sign, and the operand that is no data."""
        sign, operands = SIGNS[name], [self._operand(each) for each in pair]
        if operands == [None, None]:
            one, other = (self.origin(each).step for each in pair)
            return f"{sign} itself" if one is other and pair[0] is not pair[1] else sign
        if name.startswith("r"):
            operands.reverse()
        if operands[0] is None:
            return f"{sign} {operands[1]}"
        return f"{sign} {operands[0]}" if sign in ("+", TIMES) else f"{operands[0]} {sign} it"

    def _operand(self, operand: Any) -> str | None:
        """A number, or the name of a tensor; None for data."""
        if not isinstance(operand, Tensor):
            return f"{operand:.3g}".replace("e+0", "e").replace("e-0", "e-")
        if self.origin(operand).step is not None:
            return None
        return self._named(operand) if self.origin(operand).parameters or operand.any() else "0"

    def _named(self, operand: Tensor) -> str:
        first, *others = sorted(self.origin(operand).parameters) or ["a constant"]
        return f"f({first}, …)" if others else first


def _name(func: Any) -> str:
    """Of a function, a method or a property; an operator's is that of its method."""
    name: str = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
    short = name.strip("_")
    return short if short in SIGNS else name


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _weighted(name: str, args: Any, kwargs: Any) -> tuple[str, str]:
    """Kernel and widths of a linear layer or a convolution."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    weight, groups = given["weight"], given.get("groups", 1)
    width_out, width_in = weight.shape[0], weight.shape[1] * groups
    if name == "linear":
        return name, f"{width_in} → {width_out}"
    depthwise = groups > 1 and weight.shape[1] == 1
    title = f"{'depthwise' if depthwise else 'conv'} {sizes(weight.shape[2:])}"
    stride, dilation = (np.max(given.get(name, 1)) for name in ("stride", "dilation"))
    title += f", dilated {dilation}" if dilation > 1 else ""
    title += f", stride {stride}" if stride > 1 else ""
    return title, str(width_out) if depthwise else f"{width_in} → {width_out}"
