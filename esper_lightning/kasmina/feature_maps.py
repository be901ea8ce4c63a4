"""Feature maps of real tensors, and a probe that looks at them without leaving a trace."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from esper_lightning.kasmina.random_stream import undisturbed_random
from esper_lightning.leyline import FeatureKind, FeatureMap, SlotUnsuitable

_KIND_OF_RANK = {4: FeatureKind.SPATIAL, 3: FeatureKind.TOKENS, 2: FeatureKind.VECTOR}


def feature_map(tensor: Tensor, *, what: str = "tensor") -> FeatureMap:
    """The feature map of a batch.

    The rank alone tells its kind: ``(B, C, L)`` of an ``nn.Conv1d`` is taken for ``(B, T, D)``.

    Args:
        tensor: ``(B, C, H, W)``, ``(B, T, D)`` or ``(B, D)``.
        what: a name for the error.

    Raises:
        SlotUnsuitable: another rank, or not floating point.

    >>> feature_map(torch.zeros(2, 3, 8, 8)).sizes
    (3, 8, 8)
    """
    kind = _KIND_OF_RANK.get(tensor.ndim)
    if kind is None or not tensor.is_floating_point():
        raise SlotUnsuitable(
            f"{what} is {tensor.dtype} of shape {tuple(tensor.shape)}; a slot carries floating "
            f"point (B, C, H, W), (B, T, D) or (B, D)"
        )
    return FeatureMap(kind=kind, sizes=tuple(int(size) for size in tensor.shape[1:]))


def first_argument(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    """What a call hands to the first parameter of ``module.forward``, by position or by name.

    Where the name is not known (``**kwargs``), the keyword that comes first. None without any.
    """
    if args:
        return args[0]
    name = next(iter(inspect.signature(module.forward).parameters), "")
    return kwargs.get(name, next(iter(kwargs.values()), None))


@contextmanager
def probing(model: nn.Module) -> Iterator[None]:
    """A context in which a forward pass leaves no trace.

    The model is in eval mode without gradients; afterwards modes, buffers and random generators
    stand as before.
    """
    modes = [(module, module.training) for module in model.modules()]
    holders = [(module, dict(module._buffers)) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    device = next((parameter.device for parameter in model.parameters()), None)
    model.eval()
    try:
        with torch.no_grad(), undisturbed_random(device):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        # A forward pass may also put another tensor in a buffer's place.
        for module, held in holders:
            module._buffers.clear()
            module._buffers.update(held)
        for module, training in modes:
            module.training = training
