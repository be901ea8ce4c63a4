"""A small fully connected host."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_whole


class DenseBlock(nn.Module):
    """Linear layer, ReLU.

    Args:
        in_features: of the input ``(B, in_features)``.
        out_features: of the output ``(B, out_features)``.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Vectors ``(B, D)`` to vectors."""
        out: Tensor = self.act(self.linear(x))
        return out


class MLP(nn.Module):
    """``depth`` dense blocks of ``width`` features, a linear head.

    Natural slots are the blocks: ``layers.0``, ``layers.1`` and so on.

    Args:
        input_shape: of one input, any number of dimensions; inputs are flattened.
        num_classes: at least 2.
        width: features of every block.
        depth: number of blocks.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self, *, input_shape: Sequence[int], num_classes: int, width: int = 8, depth: int = 2
    ) -> None:
        super().__init__()
        if not input_shape or min(input_shape) < 1:
            raise InvalidArgument(
                f"MLP input_shape must be one or more positive sizes, got {tuple(input_shape)}"
            )
        check_whole("MLP num_classes", num_classes, least=2)
        check_whole("MLP width", width, least=1)
        check_whole("MLP depth", depth, least=1)
        sizes = [math.prod(input_shape), *[width] * depth]
        self.layers = nn.Sequential(
            *(DenseBlock(before, after) for before, after in pairwise(sizes))
        )
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs ``(B, *input_shape)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.head(self.layers(x.flatten(1)))
        return logits
