"""What the families share: initialisation, norms, hidden widths, strides and counts."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from esper_lightning.leyline import SlotShape

Weighted = TypeVar("Weighted", nn.Conv1d, nn.Conv2d, nn.Linear)

MIN_NORMED_VALUES = 4
"""A norm over fewer values nearly erases them: one value becomes 0 whatever it was, two become +-1,
and nothing before the norm would ever get a gradient. A branch with a norm does not fit there."""

CHANNELS_PER_GROUP = 8


def kaiming(layer: Weighted, *, gain: float = math.sqrt(2)) -> Weighted:
    """Draw the weight from ``N(0, gain^2 / fan_in)``, set the bias to 0, and return the layer.

    He et al. 2015 (arXiv:1502.01852). ``gain=1`` suits a layer that no activation follows.
    """
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zeroed(layer: Weighted) -> Weighted:
    """Set weight and bias to 0, so that a branch that ends in the layer is silent at birth.

    Never put a norm behind it: its gradient would be 0 for ever, or explode.
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """Groups of eight channels where they divide, else one group (Wu & He 2018, arXiv:1803.08494).

    Needs at least :data:`MIN_NORMED_VALUES` values in ``(C, H, W)``.
    """
    whole = channels % CHANNELS_PER_GROUP == 0
    num_groups = channels // CHANNELS_PER_GROUP if whole else 1
    return _GroupNorm(num_groups, channels, affine=affine)


class _GroupNorm(nn.GroupNorm):
    """GroupNorm that does not see a channels_last layout.

    In torch 2.13 the kernel for that layout on CPU crashes the process in its backward pass when
    the weight needs a gradient and the input does not, as in a seed whose gradients are isolated.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(2)).reshape(input.shape)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 when its type is a half one: for what half precision cannot do."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def scaled(width: int, factor: float) -> int:
    """``width * factor``, rounded, at least 1.

    >>> scaled(3, 0.25), scaled(3, 4.0)
    (1, 12)
    """
    return max(1, round(width * factor))


def conv_weights(c_in: int, c_out: int, *, kernel_size: int = 1, groups: int = 1) -> int:
    """Weights of a square convolution without its bias; of a linear layer when the kernel is 1."""
    return c_in // groups * c_out * kernel_size**2


def strides(shape: SlotShape) -> tuple[int, int]:
    """Strides that bring a parallel spatial branch nearest to the output's height and width.

    With "same" padding, under which a stride ``s`` leaves ``ceil(size / s)``. Exact for a host that
    shrinks in this way; otherwise the slot pools the rest.
    """
    stride_h, stride_w = map(_stride, shape.input.height_width, shape.output.height_width)
    return stride_h, stride_w


def strided_positions(shape: SlotShape) -> int:
    """``H * W`` after :func:`strides`."""
    sizes = zip(shape.input.height_width, strides(shape), strict=True)
    return math.prod(math.ceil(size / stride) for size, stride in sizes)


def _stride(size_in: int, size_out: int) -> int:
    """The smaller one where two come equally near: better to pool than to repeat pixels.

    >>> _stride(7, 4), _stride(7, 3), _stride(9, 4), _stride(28, 26)
    (2, 3, 2, 1)
    """
    candidates = (size_in // size_out, math.ceil(size_in / size_out))
    return min(candidates, key=lambda stride: abs(math.ceil(size_in / stride) - size_out))
