"""Straight-through incubation: a seed trains on the host's gradient, the host never notices."""

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    """Forward: the host's tensor. Backward: the host's gradient, once for each of the two."""

    @staticmethod
    def forward(ctx: Any, host: Tensor, seed: Tensor, trust_radius: float) -> Tensor:
        ctx.save_for_backward(seed, _norm(host))
        ctx.trust_radius = trust_radius
        return _copy(host)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        seed, host_norm = ctx.saved_tensors
        bound = ctx.trust_radius * host_norm
        pull = _norm(gradient) / bound.clamp_min(torch.finfo(bound.dtype).tiny)
        return gradient, (gradient + pull * seed.to(pull.dtype)).to(seed.dtype), None


def _copy(tensor: Tensor) -> Tensor:
    """With the same strides: a copy of a slice would be packed, and multiplied in another order."""
    copy = tensor.clone()
    if copy.stride() == tensor.stride() or 0 in tensor.stride():
        return copy
    spread = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return spread.copy_(tensor)


def _norm(tensor: Tensor) -> Tensor:
    """L2 norm in float32 at least: that of a feature map overflows float16."""
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=dtype)
    return norm


def straight_through(host: Tensor, seed: Tensor, *, trust_radius: float) -> Tensor:
    """Return ``host`` unchanged, and let ``seed`` learn from the gradient that arrives there.

    The result is a copy of ``host`` bit for bit, whatever ``seed`` holds (NaN included), and the
    gradient that reaches ``host`` is the one that arrives, bit for bit.

    With ``g`` the arriving gradient, ``seed`` receives ``g + (|g| / (r |h|)) seed``: the gradient
    of the loss linearised at the host's output plus a proximal term. Its minimiser is
    ``-r |h| g / |g|``, a step of relative length ``r`` down the loss in function space, as in
    gradient boosting (Friedman 2001). Without the proximal term nothing in the gradient depends on
    the seed's own output, whose magnitude then grows without bound.

    Args:
        host: the slot's output, any shape.
        seed: the seed's output, same shape, with gradient.
        trust_radius: ``r`` above, relative to the norm of ``host``, positive.
    """
    output: Tensor = _StraightThrough.apply(host, seed, trust_radius)  # type: ignore[no-untyped-call]
    return output
