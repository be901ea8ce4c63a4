"""Token ids in memory: as examples, and as windows of one long text."""

import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.data.labelled import LabelledTensors


class LabelledIds(LabelledTensors):
    """Inputs that are token ids, each a row of an embedding.

    Args:
        inputs: ``(N, *input_shape)`` int64.
        labels: ``(N,)`` int64, or ``(N, *label_shape)``.
        num_tokens: ids are 0 to ``num_tokens - 1``.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, *, num_tokens: int) -> None:
        super().__init__(inputs, labels)
        self.num_tokens = num_tokens

    def take(self, indices: Tensor) -> "LabelledIds":
        """The examples at ``indices``, in that order."""
        return LabelledIds(self.inputs[indices], self.labels[indices], num_tokens=self.num_tokens)

    def check_values(self, what: str) -> None:
        """Refuse ids of another type, and those that are no token.

        Args:
            what: name of the data and the split, for the error.

        Raises:
            InvalidArgument: a type other than int64, or ids out of range.
        """
        _check_ids(self.inputs, self.num_tokens, what)


class TextWindows(LabelledIds):
    """Windows of one sequence of ids; the labels are the ids that come next.

    Example ``i`` begins at position ``i * stride``: its inputs are the ``context`` ids from there
    on, its labels those from one position later. Inputs and labels are views of the sequence, which
    is in memory once, however much the windows overlap.

    Args:
        ids: ``(M,)`` int64.
        context: ids of one window.
        stride: from the beginning of a window to that of the next; ``context`` for windows that do
            not overlap, 1 for all that there are.
        num_tokens: ids are 0 to ``num_tokens - 1``.

    Raises:
        InvalidArgument: there are too few ids for one window and what comes next.
    """

    def __init__(self, ids: Tensor, *, context: int, stride: int, num_tokens: int) -> None:
        if len(ids) <= context:
            raise InvalidArgument(
                f"{len(ids)} characters are too few for a window of {context} and the next one; "
                f"take a smaller context, or a longer text"
            )
        self.ids = ids
        super().__init__(
            ids[:-1].unfold(0, context, stride),
            ids[1:].unfold(0, context, stride),
            num_tokens=num_tokens,
        )

    def check_values(self, what: str) -> None:
        """As for any ids, but each is looked at once, not in every window."""
        _check_ids(self.ids, self.num_tokens, what)

    def check_labels(self, what: str, num_classes: int) -> None:
        """As for any labels, but each is looked at once, not in every window."""
        _check_ids(self.ids, num_classes, what)


def _check_ids(ids: Tensor, num: int, what: str) -> None:
    if ids.dtype != torch.int64:
        raise InvalidArgument(
            f"{what}: token ids are {ids.dtype}, expected torch.int64; convert them with .long()"
        )
    outside = ids[(ids < 0) | (ids >= num)]
    if len(outside):
        raise InvalidArgument(
            f"{what}: {len(outside)} of {ids.numel()} token ids are out of range, the first is "
            f"{int(outside[0])}; allowed are 0 to {num - 1}"
        )
