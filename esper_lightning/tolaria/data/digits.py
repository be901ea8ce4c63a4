"""Handwritten digits, the data that are always at hand."""

import torch

from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.tolaria.data.labelled import LabelledTensors
from esper_lightning.tolaria.data.splits import SplitDataModule
from esper_lightning.tolaria.data.stratify import Splits, three_way_split


class Digits(SplitDataModule):
    """The 1,797 digits of 8x8 pixels that come with scikit-learn; pixels in [0, 1].

    Args:
        batch_size: of training.
        val_fraction: share of all examples that becomes val.
        test_fraction: share of all examples that becomes test.
        seed: of the training order.
        split_seed: decides which example goes where, whatever the seed of the run.
        num_workers: processes that fetch batches.
        subset: keep only so many training examples.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    def __init__(
        self,
        *,
        batch_size: int = 32,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        seed: int = 0,
        split_seed: int = 0,
        num_workers: int = 0,
        subset: int | None = None,
    ) -> None:
        super().__init__(
            name="digits",
            input_shape=(1, 8, 8),
            num_classes=10,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
        )
        check_number("digits: val_fraction", val_fraction)
        check_number("digits: test_fraction", test_fraction)
        check_whole("digits: split_seed", split_seed)
        check_whole("digits: subset", subset, or_none=True)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.subset = subset

    def load(self) -> Splits:
        """Read from the installed package, nothing is downloaded."""
        # Importing scikit-learn takes a second, which users of other data should not wait for.
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        examples = LabelledTensors(
            torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16,
            torch.from_numpy(labels).long(),
        )
        return three_way_split(
            examples,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
            subset=self.subset,
        )
