"""The tasks of the benchmark: which data, which host, how long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from esper_lightning.tolaria import CNN


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A data set, a host that is too small for it, and a budget of epochs.

    Attributes:
        name: in rows, tables and folders.
        title: in tables.
        overrides: of ``train.py``, the same in every arm.
        epochs: of a whole run.
        width: of the host that grows.
        widths: of hosts that a user who does not know the size would try.
        num_slots: that the host has by itself.
        host: the host of a width.
        tuned: whether defaults were chosen on it; if not, it is reported once.
    """

    name: str
    title: str
    overrides: tuple[str, ...]
    epochs: int
    width: int
    widths: tuple[int, ...]
    num_slots: int
    host: Callable[[int], nn.Module]
    tuned: bool

    def parameters(self, width: int) -> int:
        """Of the host of a width."""
        return sum(parameter.numel() for parameter in self.host(width).parameters())


_ROWS = (
    Task(
        name="digits",
        title="digits / cnn",
        overrides=("data=digits", "host=cnn"),
        epochs=40,
        width=4,
        widths=(4, 6, 8, 12, 16),
        num_slots=3,
        host=lambda width: CNN(input_shape=(1, 8, 8), num_classes=10, width=width),
        tuned=True,
    ),
    Task(
        name="fashion_6k",
        title="Fashion-MNIST, 6,000 images / cnn",
        overrides=("data=fashion_mnist", "data.subset=6000", "host=cnn"),
        epochs=24,
        width=4,
        widths=(4, 6, 8, 12, 16),
        num_slots=3,
        host=lambda width: CNN(input_shape=(1, 28, 28), num_classes=10, width=width),
        tuned=True,
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({row.name: row for row in _ROWS})
"""Every task by its name."""
