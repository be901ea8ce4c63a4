"""Adult: what people earn, from a census."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from esper_lightning.tolaria.data.adult_table import CATEGORIES, NUM_FEATURES, NUMBERS, read_table
from esper_lightning.tolaria.data.labelled import LabelledTensors
from esper_lightning.tolaria.data.published import PublishedData
from esper_lightning.tolaria.data.source import PublishedFile, Source
from esper_lightning.tolaria.data.stratify import Splits

SKEWED = ("capital-gain", "capital-loss")
"""Nearly always 0, up to 99,999 otherwise: their logarithm is taken, of 1 plus the number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdultSource(Source):
    """The two files of the data.

    Attributes:
        train: the published training examples.
        test: the published test examples.
    """

    train: PublishedFile
    test: PublishedFile

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        """Both."""
        return self.train, self.test


class Adult(PublishedData):
    """32,561 training and 16,281 test people, does one earn more than 50,000 dollars a year?

    Inputs are ``(108,)`` float32: the six numbers (``NUMBERS``), then the eight categories
    (``CATEGORIES``) as one-hot vectors over fixed lists of values. The numbers have zero mean and
    unit variance over the train split, without val, test and what a ``subset`` leaves out; of
    capital gain and loss the logarithm of 1 plus the number is taken before. Class 1 is more than
    50,000 dollars, 24 % of all.

    Kohavi 1996, Scaling up the accuracy of naive-Bayes classifiers: a decision-tree hybrid, KDD.
    Becker and Kohavi 1996, Adult, UCI Machine Learning Repository, doi:10.24432/C5XW20.

    Args:
        data_dir: folder in which the files are looked for, see :class:`Source`.
        download: fetch missing files.
        verify: compare every file with the published checksum; False reads your own data in the
            same format.
        batch_size: of training.
        num_val: training examples that become val.
        subset: keep only so many of the other training examples; None keeps all.
        seed: of the training order.
        split_seed: decides which example goes where, whatever the seed of the run.
        num_workers: processes that fetch batches.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    source: ClassVar[AdultSource] = AdultSource(
        name="adult",
        folders=("adult", "tabular"),
        mirrors=("https://archive.ics.uci.edu/ml/machine-learning-databases/adult/",),
        train=PublishedFile(
            name="adult.data",
            forms=dict.fromkeys(
                ("adult.data", "adult_train.csv"),
                "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            ),
        ),
        test=PublishedFile(
            name="adult.test",
            forms={
                "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
                # Without the first line, which holds no example.
                "adult_test.csv": (
                    "72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074"
                ),
            },
        ),
    )

    def __init__(
        self,
        *,
        data_dir: str | Path = "data",
        download: bool = False,
        verify: bool = True,
        batch_size: int = 256,
        num_val: int = 5000,
        subset: int | None = None,
        seed: int = 0,
        split_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            input_shape=(NUM_FEATURES,),
            num_classes=2,
            data_dir=data_dir,
            download=download,
            verify=verify,
            batch_size=batch_size,
            num_val=num_val,
            subset=subset,
            seed=seed,
            split_seed=split_seed,
            num_workers=num_workers,
        )

    def read(self, folder: Path) -> tuple[LabelledTensors, LabelledTensors]:
        """Both tables, not yet as a model takes them: see :func:`read_table`."""
        train = read_table(self.checked(self.source.train, folder))
        return train, read_table(self.checked(self.source.test, folder))

    def load(self) -> Splits:
        """Read the files, split what they hold, and scale it by what train holds.

        Raises:
            DataMissing: files are not there.
            DataDamaged: a file is not what it should be.
        """
        tables = super().load()
        numbers = _numbers(tables.train.inputs)
        mean, std = numbers.mean(dim=0), numbers.std(dim=0, unbiased=False)
        # A column that is the same everywhere in a small subset becomes 0.
        std[std == 0] = 1
        return Splits(
            *(LabelledTensors(_features(part.inputs, mean, std), part.labels) for part in tables)
        )


def _numbers(table: Tensor) -> Tensor:
    numbers = table[:, : len(NUMBERS)].clone()
    skewed = [NUMBERS.index(column) for column in SKEWED]
    numbers[:, skewed] = numbers[:, skewed].log1p()
    return numbers


def _features(table: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    codes = table[:, len(NUMBERS) :].long()
    one_hot = [
        functional.one_hot(column, len(values))
        for column, values in zip(codes.unbind(dim=1), CATEGORIES.values(), strict=True)
    ]
    return torch.cat([(_numbers(table) - mean) / std, *one_hot], dim=1).float()
