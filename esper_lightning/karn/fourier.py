"""Fourier features of the last dimension of ``(B, D)`` or ``(B, T, D)``."""

import torch
from torch import Tensor, nn

from esper_lightning.karn.blueprint import FEATURES, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import MIN_NORMED_VALUES, conv_weights, kaiming, scaled, zeroed
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape


class FourierFeatures(CountableBranch):
    """LayerNorm, then ``W [cos(B x), sin(B x)]`` with random frequencies ``B``.

    Tancik et al. 2020 (arXiv:2006.10739), section 4, over the random features of Rahimi & Recht
    2007. Three deviations: the frequencies go on training; they are in radians, so that the paper's
    ``2 pi`` is part of them; a norm in front, because a slot's input may be of any scale, and a
    frequency means something only for a known one.

    Args:
        shape: of the slot, ``(D_in,) -> (D_out,)`` or ``(T, D_in) -> (T, D_out)``.
        expansion: number of frequencies over ``D_out``.
        bandwidth: standard deviation of the phases at birth in radians: how quickly the features
            turn as the input moves.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape, *, expansion: float, bandwidth: float) -> None:
        super().__init__()
        d_in, d_out = shape.input.features, shape.output.features
        frequencies = scaled(d_out, expansion)
        self.norm = nn.LayerNorm(d_in)
        self.frequencies = kaiming(nn.Linear(d_in, frequencies, bias=False), gain=bandwidth)
        self.project = zeroed(nn.Linear(2 * frequencies, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D_in)`` to ``(..., D_out)``."""
        phase = self.frequencies(self.norm(x))
        out: Tensor = self.project(torch.cat((phase.cos(), phase.sin()), dim=-1))
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where the norm has enough features."""
        return super().fits(shape) and shape.input.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float, bandwidth: float) -> Cost:  # noqa: ARG003
        """Two linear layers, the last with its bias, and the norm; sines are free."""
        d_in, d_out = shape.input.features, shape.output.features
        weights = conv_weights(d_in + 2 * d_out, scaled(d_out, expansion))
        return Cost(
            parameters=weights + 2 * d_in + d_out,
            flops=2 * weights * shape.output.num_positions,
        )


BLUEPRINTS = (
    Blueprint(
        id="BP034",
        name="fourier_features",
        branch=FourierFeatures,
        kinds=FEATURES,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=3,
        parameters={"expansion": Range(0.25, 8.0, 2.0), "bandwidth": Range(0.25, 4.0, 1.0)},
        approval="2026-11 v1",
        citation="Tancik et al. 2020, arXiv:2006.10739",
    ),
)
