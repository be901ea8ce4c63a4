"""The call that constructs a module of ``torch.nn`` as it is."""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from esper_lightning.kasmina.export.literals import is_literal, literal

_INTERNALS = frozenset(vars(nn.Module()))

_DERIVED: Mapping[type[nn.Module], Mapping[str, Callable[[Any], Any]]] = {
    nn.MultiheadAttention: {
        "bias": lambda module: module.in_proj_bias is not None,
        "add_bias_kv": lambda module: module.bias_k is not None,
    },
    nn.TransformerEncoderLayer: {
        "d_model": lambda module: module.self_attn.embed_dim,
        "nhead": lambda module: module.self_attn.num_heads,
        "dim_feedforward": lambda module: module.linear1.out_features,
        "dropout": lambda module: module.dropout.p,
        "activation": lambda module: module.activation.__name__,
        "layer_norm_eps": lambda module: module.norm1.eps,
        "batch_first": lambda module: module.self_attn.batch_first,
        "bias": lambda module: module.linear1.bias is not None,
    },
}
"""Constructor arguments that a module does not keep under their own names."""


def constructor(module: nn.Module) -> str | None:
    """For example ``nn.Conv2d(1, 4, (3, 3), padding=(1, 1))``: as few arguments as it takes.

    Returns:
        None for what is not a class of ``torch.nn``, has hooks or was changed after its
        construction: the call would make something else.
    """
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind or _is_changed(module):
        return None
    signature = inspect.signature(kind)
    if isinstance(
        module, nn.RNNBase
    ):  # its classes take anything, and hand it on behind their mode
        signature = inspect.signature(functools.partial(nn.RNNBase, module.mode))
    given: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        known, value = _argument(module, name)
        if not known or value == parameter.default or not is_literal(value):
            continue
        if parameter.default is parameter.empty and not named:
            given.append(value)
        else:
            named[name] = value
    if not _makes(module, given, named):
        return None
    for name in list(named):
        fewer = {other: value for other, value in named.items() if other != name}
        if _makes(module, given, fewer):
            named = fewer
    texts = [literal(value) for value in given]
    texts += [f"{name}={literal(value)}" for name, value in named.items()]
    return f"nn.{kind.__name__}({', '.join(texts)})"


def _makes(module: nn.Module, given: list[Any], named: dict[str, Any]) -> bool:
    """Whether the class of ``module`` makes the same of these arguments."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _same(module, type(module)(*given, **named))
    except (TypeError, ValueError):
        return False


def _argument(module: nn.Module, name: str) -> tuple[bool, Any]:
    derived = _DERIVED.get(type(module), {})
    if name in derived:
        try:
            return True, derived[name](module)
        except AttributeError:  # a part of it was replaced
            return False, None
    if name == "dtype":
        tensors = (*module.parameters(), *module.buffers())
        dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        return len(dtypes) == 1 and dtypes != {torch.float32}, next(iter(dtypes), None)
    if not hasattr(module, name):
        return False, None
    value = getattr(module, name)
    is_weight = name == "bias" and (value is None or isinstance(value, torch.Tensor))
    return True, (value is not None) if is_weight else value


def _is_changed(module: nn.Module) -> bool:
    """Whether a call of the module does more, or something else, than its class says."""
    hooks = (name for name in _INTERNALS if name.endswith("_hooks") and "state_dict" not in name)
    return "forward" in vars(module) or any(vars(module)[name] for name in hooks)


def _same(module: nn.Module, again: nn.Module) -> bool:
    """Whether both are of one class, with equal settings and tensors of equal shape and dtype."""
    if type(module) is not type(again) or _is_changed(module):
        return False
    settings, expected = (
        {name: value for name, value in vars(each).items() if name not in _INTERNALS}
        for each in (module, again)
    )
    for name, value in expected.items():
        if is_literal(value) or callable(value):
            if name not in settings or settings[name] != value:
                return False
        elif not name.startswith("_"):
            return False
    tensors, others = (
        {**each._parameters, **each._buffers, **each._modules} for each in (module, again)
    )
    if tensors.keys() != others.keys():
        return False
    return all(_alike(tensors[name], others[name]) for name in tensors)


def _alike(one: object, other: object) -> bool:
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        return _same(one, other)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return type(one) is type(other) and (one.shape, one.dtype) == (other.shape, other.dtype)
    return one is other
