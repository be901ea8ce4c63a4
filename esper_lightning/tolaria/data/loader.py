"""A loader whose workers begin only when the first batch is asked for."""

from collections.abc import Iterator, Mapping
from itertools import islice
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

    A checkpoint from within an epoch holds how many batches were handed out; a pass that goes on
    from there fetches those once more and drops them.
    """

    _begin = 0
    _position = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        begin, self._begin = self._begin, 0
        self._position = begin
        for batch in islice(super().__iter__(), begin, None):
            self._position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches that this pass has handed out; 0 between two passes."""
        return {"batches": self._position % len(self)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin the next pass, of the same order, where the saved one stood."""
        self._begin = state["batches"]
