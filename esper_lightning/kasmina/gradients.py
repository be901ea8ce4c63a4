"""Gradients of seeds: guarded, measured, and clipped apart from the host's.

Nothing here waits for the device: every result is a tensor that stays where it is.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def gradients_of(module: nn.Module) -> list[Tensor]:
    """The gradients that are there, in the order of the parameters."""
    return [p.grad for p in module.parameters() if p.grad is not None]


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """L2 norm of all of them together, as a 0-dimensional float32 tensor."""
    norms = torch._foreach_norm([gradient.detach() for gradient in gradients])
    norm: Tensor = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
    return norm


def drop_if_not_finite(gradients: list[Tensor]) -> Tensor:
    """Zero all gradients in place if any of them holds NaN or infinity, or their norm overflows.

    Returns:
        1.0 if they were dropped, else 0.0, as a 0-dimensional tensor on their device.
    """
    bad = ~torch.isfinite(total_norm(gradients))
    for gradient in gradients:
        gradient.masked_fill_(bad, 0.0)
    return bad.float()


def clip_norm(gradients: list[Tensor], max_norm: float) -> None:
    """Scale all gradients in place so that their joint norm is at most ``max_norm``."""
    scale = (max_norm / (total_norm(gradients) + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale)


def clip_value(gradients: list[Tensor], limit: float) -> None:
    """Clamp every element in place to ``[-limit, limit]``."""
    torch._foreach_clamp_min_(gradients, -limit)
    torch._foreach_clamp_max_(gradients, limit)
