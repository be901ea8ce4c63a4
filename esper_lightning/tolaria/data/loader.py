"""A loader whose workers begin only when the first batch is asked for."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from esper_lightning.tolaria.data.labelled import Batch


class DeferredLoader(DataLoader[Batch]):
    """A ``DataLoader`` that takes no index from its sampler before its first batch is asked for.

    Lightning makes the iterator of the first epoch before it calls ``set_epoch``, and where
    ``estimated_stepping_batches`` is read in ``configure_optimizers`` even before the progress of a
    resumed run is restored. Workers take indices as soon as there is an iterator, so that the first
    epoch after a resume would come in the order of epoch 0
    (https://github.com/Lightning-AI/pytorch-lightning/issues/21938).
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()
