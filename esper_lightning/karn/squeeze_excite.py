"""Squeeze-and-excitation: channels that turn each other up and down."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import conv_weights, kaiming, scaled, zeroed
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape


class SqueezeExcite(CountableBranch):
    """``f(h) = h * (2 sigmoid(mlp(mean_HW h)) - 1)``: ``h + f(h)`` scales channels by 0 to 2.

    Hu et al. 2018 (arXiv:1709.01507), equations 2 to 4. Two deviations: the gain is 1 at birth, not
    1/2, so that insertion changes nothing; SiLU in place of ReLU, because a hidden layer of one or
    two units must not be born dead.

    Args:
        shape: of the slot, ``(C, H, W)``.
        reduction: ``C`` over the hidden width.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, reduction: int) -> None:
        super().__init__()
        channels = shape.output.features
        hidden = scaled(channels, 1 / reduction)
        self.squeeze = kaiming(nn.Linear(channels, hidden))
        self.excite = zeroed(nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        gate = self.excite(F.silu(self.squeeze(x.mean(dim=(2, 3)))))
        gain = 2 * torch.sigmoid(gate) - 1
        return x * gain[:, :, None, None]

    @classmethod
    def cost(cls, shape: SlotShape, /, *, reduction: int) -> Cost:
        """Two linear layers with their biases, once per sample."""
        channels = shape.output.features
        hidden = scaled(channels, 1 / reduction)
        weights = 2 * conv_weights(channels, hidden)
        return Cost(parameters=weights + hidden + channels, flops=2 * weights)


BLUEPRINTS = (
    Blueprint(
        id="BP005",
        name="squeeze_excite",
        branch=SqueezeExcite,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.05,
        curriculum_stage=1,
        parameters={"reduction": Range(1, 16, 4)},
        approval="2026-11 v1",
        citation="Hu et al. 2018, arXiv:1709.01507",
    ),
)
