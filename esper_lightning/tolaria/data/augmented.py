"""Training images that come out shifted and mirrored at random, and reproducibly."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esper_lightning.tolaria.data.labelled import Batch
from esper_lightning.tolaria.data.pixels import LabelledPixels
from esper_lightning.tolaria.data.sampler import EpochDraws

PADDING = 4
"""Pixels of zeros on every side, from which a crop of the image's own size is taken."""


class AugmentedPixels(LabelledPixels):
    """Images of which each draw is a random crop within a border of zeros, half of them mirrored.

    The usual augmentation of CIFAR-10: He et al. 2016, arXiv:1512.03385, section 4.2. The border is
    black: it is put around the bytes, before they are shifted and scaled.

    What an image looks like is a function of the seed and of the number of the draw, which tells
    epoch and image (:class:`EpochDraws`), and of nothing else: not of the batch it is in, nor of
    how many workers or ranks share the images. A run that goes on from a checkpoint sees what the
    uninterrupted one sees, and no generator is read or advanced.

    Args:
        inputs: ``(N, C, H, W)`` uint8.
        labels: ``(N,)`` int64.
        mean: of pixels in [0, 1]: one number, or one for each of the C channels.
        std: of pixels in [0, 1], above 0; as many numbers as ``mean``.
        seed: of shifts and mirror images, any integer.

    Raises:
        InvalidArgument: as :class:`LabelledPixels`.
    """

    sampler = EpochDraws

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        *,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        seed: int,
    ) -> None:
        super().__init__(inputs, labels, mean=mean, std=std)
        self.seed = seed

    def __getitem__(self, index: int) -> Batch:
        inputs, labels = self.__getitems__([index])
        return inputs[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        draws = torch.tensor(indices)
        chosen = draws % len(self)
        views = random_views(self.inputs[chosen], draws, seed=self.seed)
        return self.prepared(views), self.labels[chosen]

    def take(self, indices: Tensor) -> "AugmentedPixels":
        """The examples at ``indices``, in that order."""
        return AugmentedPixels(
            self.inputs[indices],
            self.labels[indices],
            mean=self.mean,
            std=self.std,
            seed=self.seed,
        )


def random_views(images: Tensor, draws: Tensor, *, seed: int) -> Tensor:
    """Shift each image by up to ``PADDING`` pixels each way, and mirror it half of the time.

    Args:
        images: ``(B, C, H, W)``, left as they are.
        draws: ``(B,)`` int64; images of the same draw are treated alike.
        seed: any integer.

    Returns:
        ``(B, C, H, W)``, zero where a shift brought in what was not there.
    """
    num_shifts = 2 * PADDING + 1
    # The remainder of 64 random bits: all 162 views are equally likely to within 1e-17.
    bits = random_bits(draws.numpy(), seed=seed)
    view = torch.from_numpy((bits % np.uint64(2 * num_shifts**2)).astype(np.int64))
    mirrored, top, left = view % 2 == 1, view // 2 % num_shifts, view // 2 // num_shifts
    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    crops = windows[torch.arange(len(images)), :, top, left]
    return torch.where(mirrored[:, None, None, None], crops.flip(3), crops)


def random_bits(numbers: NDArray[np.int64], *, seed: int) -> NDArray[np.uint64]:
    """64 random bits for each number: the output of SplitMix64 at that place of its sequence.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", with the constants
    of Stafford's variant 13: a generator whose output at any place needs none of those before.

    Args:
        numbers: integers of at least 0.
        seed: any integer; sequences of different seeds begin at unrelated places.

    Returns:
        uint64, in the shape of ``numbers``.
    """
    digest = hashlib.sha256(f"views {seed}".encode()).digest()
    start = np.frombuffer(digest[:8], dtype="<u8").astype(np.uint64)
    # uint64 arrays wrap around, which is meant.
    bits: NDArray[np.uint64] = start + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits
