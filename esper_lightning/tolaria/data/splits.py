"""Data modules over three splits that lie in memory."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.tolaria.data.labelled import Batch, LabelledTensors, as_is
from esper_lightning.tolaria.data.loader import DeferredLoader
from esper_lightning.tolaria.data.sampler import EachOnce, EpochShuffle
from esper_lightning.tolaria.data.stratify import Splits

EVAL_BATCH_SIZE = 256
"""Least number of examples in a validation or test batch: no activations are kept for them."""


class SplitDataModule(LightningDataModule):
    """Train, val and test examples of one classification task.

    A new data set is a subclass that defines :meth:`load`. The splits are loaded once, checked once
    and the same for every run seed. Loaders have random generators of their own: making or
    iterating one leaves the global generator untouched.

    Args:
        name: of the data, for errors and reports.
        input_shape: of one input.
        num_classes: labels are 0 to ``num_classes - 1``; None where the data tell, for a subclass
            that defines the property.
        batch_size: of training; evaluation takes at least ``EVAL_BATCH_SIZE``.
        seed: of the training order; the splits do not depend on it.
        num_workers: processes that fetch batches; data in memory are fetched faster without.
        label_shape: of the labels of one input; empty where it has one, ``(T,)`` where each of its
            T positions has one.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    name: str

    def __init__(
        self,
        *,
        name: str,
        input_shape: Sequence[int],
        num_classes: int | None,
        batch_size: int,
        seed: int,
        num_workers: int,
        label_shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if num_classes is not None:
            check_whole(f"{name}: num_classes", num_classes, least=2)
        check_whole(f"{name}: batch_size", batch_size, least=1)
        check_whole(f"{name}: seed", seed)
        check_whole(f"{name}: num_workers", num_workers, least=0)
        self.name = name
        self.input_shape = tuple(input_shape)
        self.label_shape = tuple(label_shape)
        self._num_classes = num_classes
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers

    @property
    def num_classes(self) -> int:
        """Labels are 0 to ``num_classes - 1``."""
        if self._num_classes is None:
            raise NotImplementedError(f"{type(self).__name__} must define num_classes or state it")
        return self._num_classes

    def load(self) -> Splits:
        """Read the three splits. Must give the same on every call and on every rank."""
        raise NotImplementedError(f"{type(self).__name__} must define load")

    @cached_property
    def splits(self) -> Splits:
        """The three splits, loaded and checked.

        Raises:
            InvalidArgument: a split is not fit for use (:meth:`LabelledTensors.check`).
        """
        splits = self.load()
        for split, examples in splits._asdict().items():
            examples.check(
                what=f"{self.name} {split}",
                input_shape=self.input_shape,
                num_classes=self.num_classes,
                label_shape=self.label_shape,
            )
        return splits

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Load and check every split, whatever the stage: a broken test split shows at once."""
        _ = self.splits

    def example_input(self, num: int = 8) -> Tensor:
        """The first ``num`` training inputs, fewer where there are fewer."""
        train = self.splits.train
        return train.prepared(train.inputs[:num].contiguous())

    def train_order(self, *, rank: int = 0, num_replicas: int = 1) -> EpochShuffle:
        """Which training examples an epoch takes, and in which order: all of them, shuffled.

        Args:
            rank: of this process, below ``num_replicas``.
            num_replicas: number of ranks that share the examples.
        """
        train = self.splits.train
        return train.sampler(len(train), seed=self.seed, rank=rank, num_replicas=num_replicas)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled anew each epoch, by seed and epoch alone."""
        order = self.train_order(**self._ranks())
        return self._loader(self.splits.train, order, self.batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order."""
        return self._evaluation_loader(self.splits.val)

    def test_dataloader(self) -> DataLoader[Batch]:
        """In order."""
        return self._evaluation_loader(self.splits.test)

    def _evaluation_loader(self, examples: LabelledTensors) -> DataLoader[Batch]:
        batch_size = max(self.batch_size, EVAL_BATCH_SIZE)
        return self._loader(examples, EachOnce(len(examples), **self._ranks()), batch_size)

    def _ranks(self) -> dict[str, int]:
        """Which process of how many this is, as a sampler takes it."""
        ranks = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        return ranks or {}

    def _loader(
        self, examples: LabelledTensors, order: Sampler[int], batch_size: int
    ) -> DataLoader[Batch]:
        return DeferredLoader(
            examples,
            batch_size=batch_size,
            sampler=order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=as_is,
            # Every new iterator draws a seed for workers, from the global generator if there is no
            # other.
            generator=torch.Generator().manual_seed(self.seed),
        )


class TensorDataModule(SplitDataModule):
    """Splits that the caller has made.

    Args:
        train, val, test: pairs of inputs ``(N, *input_shape)`` float32 and labels int64,
            ``(N,)`` or ``(N, *label_shape)``.
        num_classes: None takes the largest training label plus one.
        name: for errors and reports.
        batch_size: of training.
        seed: of the training order.
        num_workers: processes that fetch batches.

    Raises:
        InvalidArgument: an argument outside of what is allowed, or one tensor in two splits.
    """

    def __init__(
        self,
        *,
        train: Batch,
        val: Batch,
        test: Batch,
        num_classes: int | None = None,
        name: str = "tensors",
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        splits = {"train": train, "val": val, "test": test}
        owner: dict[Any, str] = {}
        for split, (inputs, _) in splits.items():
            if inputs.numel() and (other := owner.setdefault(inputs.data_ptr(), split)) != split:
                raise InvalidArgument(
                    f"{name}: {other} and {split} are the same inputs; splits must be disjoint, or "
                    "decisions are made on what the result is measured with"
                )
        if num_classes is None:
            labels = train[1]
            num_classes = int(labels.max()) + 1 if labels.numel() else 0
        super().__init__(
            name=name,
            input_shape=train[0].shape[1:],
            num_classes=num_classes,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            label_shape=train[1].shape[1:],
        )
        self._given = Splits(**{split: LabelledTensors(*pair) for split, pair in splits.items()})

    def load(self) -> Splits:
        """The splits as given."""
        return self._given
