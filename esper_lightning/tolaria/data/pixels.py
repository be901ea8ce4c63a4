"""Labelled images that stay bytes until a batch is taken out."""

import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.data.labelled import LabelledTensors

MAX_PIXEL = 255


class LabelledPixels(LabelledTensors):
    """Grey images as uint8, taken out as float32 with about zero mean and unit variance.

    An example comes out as ``(pixel / 255 - mean) / std``. Stored as bytes, images take a quarter
    of the memory of float32 and are split and sampled as much faster; a batch costs the same,
    because gathering it dominates.

    Args:
        inputs: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` int64.
        mean: of pixels in [0, 1].
        std: of pixels in [0, 1], above 0.

    Raises:
        InvalidArgument: ``std`` is not above 0.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, *, mean: float, std: float) -> None:
        if not std > 0:
            raise InvalidArgument(f"std of pixels must be above 0, got {std}")
        super().__init__(inputs, labels)
        self.mean = mean
        self.std = std

    def prepared(self, inputs: Tensor) -> Tensor:
        """Bytes to float32, shifted and scaled."""
        return inputs.float().sub_(MAX_PIXEL * self.mean).div_(MAX_PIXEL * self.std)

    def take(self, indices: Tensor) -> "LabelledPixels":
        """The examples at ``indices``, in that order."""
        return LabelledPixels(
            self.inputs[indices], self.labels[indices], mean=self.mean, std=self.std
        )

    def check_values(self, what: str) -> None:
        """Bytes are all that is asked for: any of them is a pixel."""
        if self.inputs.dtype != torch.uint8:
            raise InvalidArgument(
                f"{what}: pixels are {self.inputs.dtype}, expected torch.uint8, 0 to {MAX_PIXEL}"
            )
