"""Data modules over colour images of 32x32 pixels whose test set is published."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from esper_lightning.leyline.arguments import check_flag, check_whole
from esper_lightning.tolaria.data.augmented import AugmentedPixels
from esper_lightning.tolaria.data.pixels import LabelledPixels
from esper_lightning.tolaria.data.splits import SplitDataModule
from esper_lightning.tolaria.data.stratify import Splits, hold_out_val

IMAGE_SHAPE = (3, 32, 32)


class LabelledImages(NamedTuple):
    """Images as they lie in files.

    Attributes:
        images: ``(N, 3, 32, 32)`` uint8: red, green, blue.
        labels: ``(N,)`` integers.
    """

    images: Tensor
    labels: Tensor


class CifarImages(SplitDataModule):
    """Colour images of 32x32 pixels in ten classes.

    A set is a subclass that names itself and its statistics, and defines :meth:`read`.

    The test split is the published test set. Val is cut out of the published training images, with
    the share of each class kept; the rest is train. Which image goes where depends on ``num_val``
    and ``split_seed`` alone, so that a smaller ``subset`` is measured on the same images.

    Pixels in [0, 1] are shifted and scaled, each channel by the mean and standard deviation of all
    training images. In memory they are bytes: 184 MB for 60,000 images.

    Args:
        batch_size: of training.
        num_val: training images that become val.
        subset: keep only so many of the other training images; None keeps all.
        augment: crop and mirror training images at random (:class:`AugmentedPixels`).
        seed: of the training order and of the augmentation.
        split_seed: decides which image goes where, whatever the seed of the run.
        num_workers: processes that fetch batches.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    title: ClassVar[str]
    """What the set is called in errors and reports."""
    mean: ClassVar[tuple[float, float, float]]
    """Of each channel of all training images, in [0, 1]."""
    std: ClassVar[tuple[float, float, float]]
    """Likewise."""

    def __init__(
        self,
        *,
        batch_size: int,
        num_val: int,
        subset: int | None,
        augment: bool,
        seed: int,
        split_seed: int,
        num_workers: int,
    ) -> None:
        super().__init__(
            name=self.title,
            input_shape=IMAGE_SHAPE,
            num_classes=10,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
        )
        check_whole(f"{self.name}: num_val", num_val)
        check_whole(f"{self.name}: subset", subset, or_none=True)
        check_flag(f"{self.name}: augment", augment)
        check_whole(f"{self.name}: split_seed", split_seed)
        self.num_val = num_val
        self.subset = subset
        self.augment = augment
        self.split_seed = split_seed

    def read(self) -> tuple[LabelledImages, LabelledImages]:
        """The published training images and test images."""
        raise NotImplementedError(f"{type(self).__name__} must define read")

    def load(self) -> Splits:
        """Read, cut out val, and have training images augmented."""
        train, test = (
            LabelledPixels(images, labels.to(torch.int64), mean=self.mean, std=self.std)
            for images, labels in self.read()
        )
        splits = hold_out_val(
            train, test, num_val=self.num_val, split_seed=self.split_seed, subset=self.subset
        )
        if not self.augment:
            return splits
        return splits._replace(
            train=AugmentedPixels(
                splits.train.inputs,
                splits.train.labels,
                mean=self.mean,
                std=self.std,
                seed=self.seed,
            )
        )
