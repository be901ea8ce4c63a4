"""The residual network for small images."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.tolaria.hosts.cnn import ConvBlock, inner_channels

NUM_STAGES = 3


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a shortcut around them; ReLU behind each.

    The shortcut is the identity where input and output have the same shape, else a 1x1 convolution
    with BatchNorm: option B of He et al. 2016, figure 2 and section 3.3.

    Args:
        in_channels: of the input ``(B, in_channels, H, W)``.
        out_channels: of the output ``(B, out_channels, ceil(H / stride), ceil(W / stride))``.
        inner: channels between the two convolutions; None for ``out_channels``.
        stride: of the first convolution, and of the projection.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, inner: int | None = None, stride: int = 1
    ) -> None:
        super().__init__()
        inner = out_channels if inner is None else inner
        self.entry = ConvBlock(in_channels, inner, stride=stride)
        self.conv = nn.Conv2d(inner, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps ``(B, C, H, W)`` to feature maps."""
        out: Tensor = self.act(self.norm(self.conv(self.entry(x))) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A convolution, three stages of basic blocks, global average pooling, a linear head.

    The network for CIFAR-10 of He et al. 2016 (arXiv:1512.03385, section 4.2), with the projections
    of option B where the original pads with zeros (option A). A depth of ``6 n + 2`` weighted
    layers gives each stage ``n`` blocks. The stages have ``width``, ``2 * width`` and ``4 * width``
    channels; the second and the third begin by halving the resolution.

    Natural slots are the blocks, ``stages.0.0`` and so on by stage and position: a branch then runs
    from a block's input to its output, beside both of its paths. ``slots=auto`` finds them, and the
    first convolution, ``stem``.

    Images of 3x32x32 and ten classes give, at depth 8, 5,214 parameters with width 4, 19,954 with 8
    and 78,042 with 16; at depth 20, 272,474 with width 16. Of these, option A has 269,722, the 0.27
    million of the paper's table 6.

    Args:
        input_shape: ``(C, H, W)`` of one image.
        num_classes: at least 2.
        depth: 8, 14, 20, 26 and so on.
        width: channels of the first stage.
        inner_ratio: channels inside a block, between its two convolutions, over those that leave
            it, rounded to at least one.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        depth: int = 8,
        width: int = 16,
        inner_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape) < 1:
            raise InvalidArgument(
                f"ResNet input_shape must be three positive sizes (C, H, W), got "
                f"{tuple(input_shape)}; use the MLP for data that are not images"
            )
        check_whole("ResNet num_classes", num_classes, least=2)
        check_whole("ResNet depth", depth)
        if depth < 8 or depth % 6 != 2:
            raise InvalidArgument(
                f"ResNet depth must be 6 n + 2 with n of at least 1 (8, 14, 20, 26, ...), got "
                f"{depth}"
            )
        check_whole("ResNet width", width, least=1)
        check_number("ResNet inner_ratio", inner_ratio)
        if not (math.isfinite(inner_ratio) and inner_ratio > 0):
            raise InvalidArgument(
                f"ResNet inner_ratio must be finite and above 0, got {inner_ratio}"
            )
        self.stem = ConvBlock(input_shape[0], width)
        self.stages = nn.Sequential()
        channels = width
        for stage in range(NUM_STAGES):
            blocks = nn.Sequential()
            for position in range((depth - 2) // 6):
                halves = stage > 0 and position == 0
                out_channels = 2 * channels if halves else channels
                blocks.append(
                    BasicBlock(
                        channels,
                        out_channels,
                        inner=inner_channels(out_channels, inner_ratio),
                        stride=2 if halves else 1,
                    )
                )
                channels = out_channels
            self.stages.append(blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015, arXiv:1502.01852, equation 10.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(x))).flatten(1))
        return logits
