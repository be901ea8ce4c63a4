"""Norms as residuals: a normed copy of the feature map, at a scale that is learned."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import FEATURES, SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import MIN_NORMED_VALUES, group_norm
from esper_lightning.leyline import Attachment, SlotShape


class ChannelNorm(CountableBranch):
    """Group norm of ``(C, H, W)`` whose scale and shift for each channel are 0 at birth.

    Wu & He 2018 (arXiv:1803.08494), with groups of eight channels.

    Args:
        shape: of the slot, ``(C, H, W)``.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        self.norm = group_norm(shape.output.features)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        # Under autocast norms are float32.
        out: Tensor = self.norm(x)
        return out.to(x.dtype)

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where the norm has enough values."""
        return shape.output.features * shape.output.num_positions >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /) -> Cost:
        """A scale and a shift for each channel."""
        return Cost(parameters=2 * shape.output.features, flops=0)


class VectorNorm(CountableBranch):
    """``f(h) = scale * h / rms(h)`` over the last dimension, the scale of each feature 0 at birth.

    Zhang & Sennrich 2019 (RMSNorm, arXiv:1910.07467), equation 4, with the epsilon of torch's other
    norms, so that features which are all 0 do no harm.

    Args:
        shape: of the slot, ``(D,)`` or ``(T, D)``.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(shape.output.features))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same."""
        return (F.rms_norm(x, self.scale.shape, eps=1e-5) * self.scale).to(x.dtype)

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where the norm has enough features."""
        return shape.output.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /) -> Cost:
        """A scale for each feature."""
        return Cost(parameters=shape.output.features, flops=0)


BLUEPRINTS = (
    Blueprint(
        id="BP003",
        name="channel_norm",
        branch=ChannelNorm,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=2,
        approval="2026-11 v1",
        citation="Wu & He 2018, arXiv:1803.08494",
    ),
    Blueprint(
        id="BP004",
        name="vector_norm",
        branch=VectorNorm,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=2,
        approval="2026-11 v1",
        citation="Zhang & Sennrich 2019, arXiv:1910.07467",
    ),
)
