"""Branches that work on the frequencies of a map: every pixel hears every other, by an FFT."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import SPATIAL, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import (
    MIN_NORMED_VALUES,
    at_least_float32,
    conv_weights,
    group_norm,
    kaiming,
    zeroed,
)
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, InvalidArgument, SlotShape


class GlobalFilter(CountableBranch):
    """Norm, then each frequency of each channel times a complex number of its own, 0 at birth.

    Rao et al. 2021 (GFNet, arXiv:2107.00645), the global filter layer of section 3.2: a depthwise
    convolution with a kernel as large as the map, which wraps around at its borders. The norm has
    no scale and shift, because the filter has them.

    Args:
        shape: of the slot, ``(C, H, W)``; a map of another height or width does not fit the filter.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        self.height_width = shape.output.height_width
        self.norm = group_norm(shape.output.features, affine=False)
        # Real and imaginary parts, so that casts and optimizers meet nothing but real numbers.
        self.filter = nn.Parameter(torch.zeros(*_spectrum(shape), 2))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same.

        Raises:
            InvalidArgument: another height or width than it was built for.
        """
        height, width = self.height_width
        if x.shape[2] != height or x.shape[3] != width:
            raise InvalidArgument(
                f"global_filter was built for maps of {height}x{width} and got "
                f"{x.shape[2]}x{x.shape[3]}; it takes no other: resize the input, or plant "
                f"spectral_conv"
            )
        spectrum = torch.fft.rfft2(at_least_float32(self.norm(x)), norm="ortho")
        spectrum = spectrum * torch.view_as_complex(at_least_float32(self.filter))
        out: Tensor = torch.fft.irfft2(spectrum, s=self.height_width, norm="ortho")
        return out.to(x.dtype)

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """From 4 pixels: with fewer there is hardly a frequency but the mean."""
        return shape.output.num_positions >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /) -> Cost:
        """Two numbers for each frequency; the transforms count as nothing."""
        return Cost(parameters=2 * math.prod(_spectrum(shape)), flops=0)


class SpectralConv(CountableBranch):
    """Norm, a pointwise plus a spectral convolution, GELU, pointwise projection.

    Li et al. 2021 (Fourier neural operator, arXiv:2010.08895), the Fourier layer of equations 2
    and 4: at each of the lowest frequencies a matrix of its own mixes the channels, and higher ones
    pass through the pointwise convolution only. Norm in front.

    Args:
        shape: of the slot, ``(C, H, W)``.
        modes: frequencies kept along each side, the mean included; never more than are below half
            a cycle a pixel.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, modes: int) -> None:
        super().__init__()
        channels = shape.output.features
        rows, columns = _kept(shape, modes)
        self.norm = group_norm(channels)
        # Real and imaginary parts, so that casts and optimizers meet nothing but real numbers.
        self.weight = nn.Parameter(
            torch.randn(rows, columns, channels, channels, 2) / math.sqrt(2 * channels)
        )
        self.pointwise = kaiming(nn.Conv2d(channels, channels, 1), gain=1.0)
        self.project = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        normed = self.norm(x)
        spectral = self._spectral(normed).to(x.dtype)
        out: Tensor = self.project(F.gelu(self.pointwise(normed) + spectral))
        return out

    def _spectral(self, x: Tensor) -> Tensor:
        """The spectral convolution: ``(B, C, H, W)`` to the same, in single precision at least."""
        rows, columns = self.weight.shape[:2]
        # Rows of a spectrum: 0, 1, 2, ..., -2, -1. Those around 0 are moved to the front and back.
        low = torch.fft.rfft2(at_least_float32(x), norm="ortho")[..., :columns].roll(rows // 2, 2)
        weight = torch.view_as_complex(at_least_float32(self.weight))
        # (rows, columns, B, C) times (rows, columns, C, C)
        mixed = (low[:, :, :rows].permute(2, 3, 0, 1) @ weight).permute(2, 3, 0, 1)
        mixed = F.pad(mixed, (0, 0, 0, x.shape[2] - rows)).roll(-(rows // 2), 2)
        # The inverse takes the missing columns as 0.
        out: Tensor = torch.fft.irfft2(mixed, s=x.shape[2:], norm="ortho")
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """From 3 pixels along a side: with fewer the mean would be the only mode."""
        normed_values = shape.output.features * shape.output.num_positions
        return max(shape.output.height_width) >= 3 and normed_values >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, modes: int) -> Cost:
        """Two pointwise convolutions with biases, the norm, and a complex matrix for each mode.

        A complex multiply-add counts as one, and the transforms as nothing, as
        :mod:`torch.utils.flop_counter` has it.
        """
        channels, positions = shape.output.features, shape.output.num_positions
        weights, num_modes = conv_weights(channels, channels), math.prod(_kept(shape, modes))
        return Cost(
            parameters=2 * weights * (1 + num_modes) + 4 * channels,
            flops=2 * weights * (2 * positions + num_modes),
        )


def _spectrum(shape: SlotShape) -> tuple[int, int, int]:
    """``(C, H, W // 2 + 1)``: what the FFT of a real map is made of, the other half mirrors it."""
    channels, height, width = shape.output.sizes
    return channels, height, width // 2 + 1


def _kept(shape: SlotShape, modes: int) -> tuple[int, int]:
    """Rows and columns of the lowest ``modes``: rows have negative frequencies as well.

    Without the one of half a cycle a pixel, which is its own negative.
    """
    below_half = [(side + 1) // 2 for side in shape.output.height_width]
    rows, columns = (min(modes, most) for most in below_half)
    return 2 * rows - 1, columns


BLUEPRINTS = (
    Blueprint(
        id="BP033",
        name="global_filter",
        branch=GlobalFilter,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.15,
        curriculum_stage=3,
        approval="2026-11 v1",
        citation="Rao et al. 2021, arXiv:2107.00645",
    ),
    Blueprint(
        id="BP035",
        name="spectral_conv",
        branch=SpectralConv,
        kinds=SPATIAL,
        tier=Tier.PRODUCTION,
        risk=0.2,
        curriculum_stage=3,
        parameters={"modes": Range(1, 12, 4)},
        approval="2026-11 v1",
        citation="Li et al. 2021, arXiv:2010.08895",
    ),
)
