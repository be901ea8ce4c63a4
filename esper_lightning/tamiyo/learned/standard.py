"""Features brought to mean 0 and variance 1, as they were in training."""

import torch
from torch import Tensor, nn

FAR = 8.0
"""Standard deviations from the mean beyond which values are not told apart: training saw next to
none, and a feature that hardly varied there may be anything on another host."""


class Standard(nn.Module):
    """Standardises the values that are there; what is missing stays 0, which is the mean.

    Until :meth:`fit` it changes nothing.

    Args:
        num: of features; a row has as many values and as many bits behind them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num))
        self.register_buffer("scale", torch.ones(num))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., 2 F)`` to the same."""
        values, there = x.chunk(2, dim=-1)
        values = ((values - self.mean) / self.scale).clamp(-FAR, FAR)
        return torch.cat([values * there, there], dim=-1)

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Take mean and standard deviation from ``(num, 2 F)``, each feature where it is there.

        A feature that is never there or does not vary keeps the scale 1.
        """
        values, there = rows.double().chunk(2, dim=-1)
        num = there.sum(dim=0).clamp(min=1)
        mean = (values * there).sum(dim=0) / num
        variance = ((values - mean).square() * there).sum(dim=0) / num
        scale = variance.sqrt()
        # Below float32's resolution of the values themselves it is rounding.
        rounding = torch.finfo(torch.float32).eps * mean.abs().clamp(min=1)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(scale > rounding, scale, 1.0))
