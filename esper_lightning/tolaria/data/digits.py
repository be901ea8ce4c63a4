"""Handwritten digits, the data that are always at hand."""

from collections.abc import Sequence

import torch

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole
from esper_lightning.tolaria.data.labelled import LabelledTensors
from esper_lightning.tolaria.data.splits import SplitDataModule
from esper_lightning.tolaria.data.stratify import Splits, three_way_split

NUM_CLASSES = 10


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
        classes: digits that are told apart, at least two, as classes 0, 1, ... in this order; None
            takes all ten.
        label_noise: share of the training examples whose label is drawn anew among all classes, the
            right one included; those of val and test stay.

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
        classes: Sequence[int] | None = None,
        label_noise: float = 0.0,
    ) -> None:
        kept = tuple(range(NUM_CLASSES) if classes is None else classes)
        if len(set(kept)) != len(kept) or len(kept) < 2 or not set(kept) <= set(range(NUM_CLASSES)):
            raise InvalidArgument(
                f"digits: classes are at least two different digits of 0 to 9, got {list(kept)}"
            )
        check_number("digits: label_noise", label_noise)
        if not 0 <= label_noise <= 1:
            raise InvalidArgument(
                f"digits: label_noise is a share of the labels, from 0 to 1, got {label_noise}"
            )
        super().__init__(
            name="digits",
            input_shape=(1, 8, 8),
            num_classes=len(kept),
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
        self.classes = kept
        self.label_noise = label_noise

    def load(self) -> Splits:
        """Read from the installed package, nothing is downloaded."""
        # Importing scikit-learn takes a second, which users of other data should not wait for.
        from sklearn.datasets import load_digits

        images, digits = load_digits(return_X_y=True)
        found = torch.from_numpy(digits).long()
        number = torch.full((NUM_CLASSES,), -1)
        number[list(self.classes)] = torch.arange(len(self.classes))
        labels = number[found]
        inputs = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16
        examples = LabelledTensors(inputs, labels).take((labels >= 0).nonzero()[:, 0])
        splits = three_way_split(
            examples,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
            subset=self.subset,
        )
        return splits._replace(train=self._noisy(splits.train))

    def _noisy(self, train: LabelledTensors) -> LabelledTensors:
        """With labels that are wrong; which ones depends on ``split_seed``, not on the run's."""
        if not self.label_noise:
            return train
        generator = torch.Generator().manual_seed(self.split_seed)
        drawn = torch.randint(len(self.classes), (len(train),), generator=generator)
        wrong = torch.rand(len(train), generator=generator) < self.label_noise
        return LabelledTensors(train.inputs, torch.where(wrong, drawn, train.labels))
