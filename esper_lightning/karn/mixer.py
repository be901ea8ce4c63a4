"""A multi-layer perceptron across the pixels of a map, in series."""

from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import MIN_NORMED_VALUES, conv_weights, kaiming, scaled, zeroed
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, InvalidArgument, SlotShape

MIN_PIXELS = 4
"""Fewest pixels that are mixed: with one there is nothing to mix."""

MAX_PIXELS = 1024
"""Most pixels that are mixed: the number of weights grows with their square."""


class PixelMixer(CountableBranch):
    """LayerNorm over the channels of each pixel, then one MLP along the pixels for all channels.

    The token-mixing half of a layer of Tolstikhin et al. 2021 (MLP-Mixer, arXiv:2105.01601),
    equation 1. A map of another height or width does not fit the weights.

    Args:
        shape: of the slot, ``(C, H, W)``.
        expansion: hidden width over ``H * W``.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, expansion: float) -> None:
        super().__init__()
        pixels = shape.output.num_positions
        hidden = scaled(pixels, expansion)
        self.height_width = shape.output.height_width
        self.norm = nn.LayerNorm(shape.output.features)
        self.expand = kaiming(nn.Linear(pixels, hidden))
        self.project = zeroed(nn.Linear(hidden, pixels))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same.

        Raises:
            InvalidArgument: another height or width than it was built for.
        """
        height, width = self.height_width
        if x.shape[2] != height or x.shape[3] != width:
            raise InvalidArgument(
                f"pixel_mixer was built for maps of {height}x{width} and got "
                f"{x.shape[2]}x{x.shape[3]}; it takes no other: resize the input, or plant "
                f"convolutions"
            )
        # (B, pixels, channels) for the norm, (B, channels, pixels) for the mixing.
        normed = self.norm(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.project(F.gelu(self.expand(normed)))
        return out.reshape(x.shape)

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """From :data:`MIN_PIXELS` to :data:`MAX_PIXELS`, with enough channels for the norm."""
        some = MIN_PIXELS <= shape.output.num_positions <= MAX_PIXELS
        return some and shape.output.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float) -> Cost:
        """Two linear layers with their biases, once for each channel, and the norm."""
        channels, pixels = shape.output.features, shape.output.num_positions
        hidden = scaled(pixels, expansion)
        weights = 2 * conv_weights(pixels, hidden)
        return Cost(
            parameters=weights + hidden + pixels + 2 * channels, flops=2 * weights * channels
        )


BLUEPRINTS = (
    Blueprint(
        id="BP028",
        name="pixel_mixer",
        branch=PixelMixer,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=3,
        parameters={"expansion": Range(0.25, 4.0, 1.0)},
        approval="2026-11 v1",
        citation="Tolstikhin et al. 2021, arXiv:2105.01601",
    ),
)
