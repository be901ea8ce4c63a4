"""Scale and shift: the cheapest thing that can be learned about a feature map."""

import torch
from torch import Tensor, nn

from esper_lightning.karn.blueprint import FEATURES, SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.leyline import Attachment, SlotShape


class _Affine(CountableBranch):
    """``f(h) = scale * h + shift``, both 0 at birth; each is repeated over ``_trailing_dims``."""

    attachment = Attachment.SERIES
    _trailing_dims: int

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        sizes = (shape.output.features,) + (1,) * self._trailing_dims
        self.scale = nn.Parameter(torch.zeros(sizes))
        self.shift = nn.Parameter(torch.zeros(sizes))

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast the sum is float32; added as it is, it would promote the host's output.
        return (x * self.scale + self.shift).to(x.dtype)

    @classmethod
    def cost(cls, shape: SlotShape, /) -> Cost:
        return Cost(parameters=2 * shape.output.features, flops=0)


class ChannelAffine(_Affine):
    """A scale and a shift for each channel of ``(B, C, H, W)``.

    Perez et al. 2018 (FiLM, arXiv:1709.07871), equation 2, without the conditioning.

    Args:
        shape: of the slot.
    """

    _trailing_dims = 2


class VectorAffine(_Affine):
    """A scale and a shift for each feature of ``(B, D)`` or ``(B, T, D)``.

    Liu et al. 2022 (IA3, arXiv:2205.05638) learn the scales, Ben Zaken et al. 2022 (BitFit,
    arXiv:2106.10199) the shifts.

    Args:
        shape: of the slot.
    """

    _trailing_dims = 0


BLUEPRINTS = (
    Blueprint(
        id="BP001",
        name="channel_affine",
        branch=ChannelAffine,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.02,
        curriculum_stage=1,
        approval="2026-11 v1",
        citation="Perez et al. 2018, arXiv:1709.07871",
    ),
    Blueprint(
        id="BP002",
        name="vector_affine",
        branch=VectorAffine,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.02,
        curriculum_stage=1,
        approval="2026-11 v1",
        citation="Liu et al. 2022, arXiv:2205.05638",
    ),
)
