"""A small convolutional host whose width decides how much there is to gain from growth."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole


class ConvBlock(nn.Module):
    """3x3 convolution without bias, BatchNorm, ReLU.

    Args:
        in_channels: of the input ``(B, in_channels, H, W)``.
        out_channels: of the output ``(B, out_channels, ceil(H / stride), ceil(W / stride))``.
        stride: of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps ``(B, C, H, W)`` to feature maps."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class ResidualBlock(nn.Module):
    """3x3 convolution, BatchNorm, ReLU, 3x3 convolution, added to what came in.

    The second convolution is zero at birth, and the block the identity (Goyal et al. 2017,
    arXiv:1706.02677, section 5.1, does it by a norm's scale). With a ``parallel_conv`` beside it,
    it is nearly this block with more channels inside.

    Args:
        channels: of the feature maps ``(B, channels, H, W)``.
        inner: channels between the two convolutions.
    """

    def __init__(self, channels: int, *, inner: int) -> None:
        super().__init__()
        self.entry = ConvBlock(channels, inner)
        self.project = nn.Conv2d(inner, channels, kernel_size=3, padding=1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps ``(B, C, H, W)`` to the same."""
        out: Tensor = x + self.project(self.entry(x))
        return out


class CNN(nn.Module):
    """Three convolution blocks, global average pooling, a linear head.

    The blocks have ``width``, ``width`` and ``2 * width`` channels. The first keeps the resolution,
    the second and the third halve it. Natural slots are the blocks: ``features.0``,
    ``features.1``, ``features.2``. Images of 1x8x8 and ten classes give 590 parameters at width 4
    and 2,034 at width 8.

    With an ``inner_ratio`` a residual block follows each halving, ``features.2`` and
    ``features.4``: natural slots of a host that is wide between its blocks and thin inside them.
    Width 8 with a ratio of 0.25 has 3,510 parameters for such images.

    Args:
        input_shape: ``(C, H, W)`` of one image.
        num_classes: at least 2.
        width: channels of the first two blocks.
        inner_ratio: channels inside a residual block over its channels, rounded to at least one; 0
            for no such blocks.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        width: int = 4,
        inner_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape) < 1:
            raise InvalidArgument(
                f"CNN input_shape must be three positive sizes (C, H, W), got "
                f"{tuple(input_shape)}; use the MLP for data that are not images"
            )
        check_whole("CNN num_classes", num_classes, least=2)
        check_whole("CNN width", width, least=1)
        check_number("CNN inner_ratio", inner_ratio)
        if not (math.isfinite(inner_ratio) and inner_ratio >= 0):
            raise InvalidArgument(
                f"CNN inner_ratio must be finite and at least 0, got {inner_ratio}; 0 builds no "
                f"residual blocks"
            )
        self.features = nn.Sequential(ConvBlock(input_shape[0], width))
        for channels in (width, 2 * width):
            self.features.append(ConvBlock(width, channels, stride=2))
            if inner_ratio:
                inner = inner_channels(channels, inner_ratio)
                self.features.append(ResidualBlock(channels, inner=inner))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return logits


def inner_channels(channels: int, ratio: float) -> int:
    """``ratio`` of ``channels``, rounded to at least one."""
    return max(1, round(ratio * channels))
