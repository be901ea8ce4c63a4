"""Labelled examples in memory, and what makes them fit to train on."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.data.sampler import EpochShuffle

Batch = tuple[Tensor, Tensor]
"""Inputs ``(B, *input_shape)`` and labels ``(B, *label_shape)``, which is ``(B,)`` for classes."""


class LabelledTensors(Dataset[Batch]):
    """Inputs and their class labels as two tensors.

    A batch is taken out by one index operation, which is why a loader must not collate it again:
    use :func:`as_is` as ``collate_fn``.

    Args:
        inputs: ``(N, *input_shape)`` float32.
        labels: ``(N,)`` int64, or ``(N, *label_shape)`` where an example has several.
    """

    sampler: ClassVar[type[EpochShuffle]] = EpochShuffle
    """What numbers the examples while training."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs = inputs
        self.labels = labels

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Batch:
        return self.prepared(self.inputs[index]), self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = torch.tensor(indices)
        return self.prepared(self.inputs[chosen]), self.labels[chosen]

    def prepared(self, inputs: Tensor) -> Tensor:
        """Inputs as a model takes them, float32, from inputs as they are stored: here the same."""
        return inputs

    def take(self, indices: Tensor) -> "LabelledTensors":
        """The examples at ``indices``, in that order."""
        return LabelledTensors(self.inputs[indices], self.labels[indices])

    def check(
        self,
        *,
        what: str,
        input_shape: tuple[int, ...],
        num_classes: int,
        label_shape: tuple[int, ...] = (),
    ) -> None:
        """Refuse what would fail or mislead later.

        Args:
            what: name of the data and the split, for the error.
            input_shape: of one example.
            num_classes: labels are 0 to ``num_classes - 1``.
            label_shape: of the labels of one example; empty where it has one.

        Raises:
            InvalidArgument: no examples, a wrong shape, type or length, inputs that are not finite,
                labels out of range.
        """
        inputs, labels = self.inputs, self.labels
        if inputs.ndim != len(input_shape) + 1 or tuple(inputs.shape[1:]) != input_shape:
            raise InvalidArgument(
                f"{what}: inputs have shape {tuple(inputs.shape)}; expected (N, "
                f"{', '.join(map(str, input_shape))}), the first dimension counting the examples"
            )
        if (
            labels.ndim != len(label_shape) + 1
            or tuple(labels.shape[1:]) != label_shape
            or labels.dtype != torch.int64
        ):
            sizes = ", ".join(("N", *map(str, label_shape))) if label_shape else "N,"
            raise InvalidArgument(
                f"{what}: labels are {labels.dtype} of shape {tuple(labels.shape)}; expected "
                f"torch.int64 of shape ({sizes}), {'' if label_shape else 'one class index '}for "
                f"each input"
            )
        if len(inputs) != len(labels):
            raise InvalidArgument(
                f"{what}: {len(inputs)} inputs but {len(labels)} labels; hand in one for each"
            )
        if len(inputs) == 0:
            raise InvalidArgument(
                f"{what}: no examples; every split needs some, enlarge its fraction or the data"
            )
        self.check_values(what)
        self.check_labels(what, num_classes)

    def check_values(self, what: str) -> None:
        """Refuse inputs whose type or values a model cannot take.

        Args:
            what: name of the data and the split, for the error.

        Raises:
            InvalidArgument: a type other than float32, or inputs that are not finite.
        """
        inputs = self.inputs
        if inputs.dtype != torch.float32:
            raise InvalidArgument(
                f"{what}: inputs are {inputs.dtype}, expected torch.float32; "
                "convert them with .float() and bring them to a scale near 1"
            )
        broken = (~torch.isfinite(inputs).flatten(1).all(dim=1)).nonzero().flatten()
        if len(broken):
            raise InvalidArgument(
                f"{what}: {len(broken)} of {len(inputs)} inputs are not finite, the first at index "
                f"{int(broken[0])}; drop these examples or fill in the missing values"
            )

    def check_labels(self, what: str, num_classes: int) -> None:
        """Refuse labels that are no class.

        Args:
            what: name of the data and the split, for the error.
            num_classes: labels are 0 to ``num_classes - 1``.

        Raises:
            InvalidArgument: a label is out of range.
        """
        labels = self.labels
        outside = ((labels < 0) | (labels >= num_classes)).nonzero()
        if len(outside):
            first = outside[0].tolist()
            where = first[0] if len(first) == 1 else tuple(first)
            raise InvalidArgument(
                f"{what}: {len(outside)} of {labels.numel()} labels are out of range, the first at "
                f"index {where} is {int(labels[tuple(first)])}; allowed are 0 to "
                f"{num_classes - 1}, number the classes from 0 or raise num_classes"
            )


def as_is(batch: Any) -> Any:
    """The collate function of data that come out as whole batches."""
    return batch
