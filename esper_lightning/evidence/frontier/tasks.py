"""The tasks of the benchmark: which data, which host, how long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from esper_lightning.tolaria import CNN, GPT, MLP, ResNet


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
        step: between two widths that the host can have.
        num_slots: in which it can grow.
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
    step: int = 1

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
    Task(
        name="cifar10_jpeg",
        title="CIFAR-10 (JPEG q75), 5,000 images / resnet 8",
        overrides=("data=cifar10_jpeg", "data.subset=5000", "host=resnet"),
        epochs=12,
        width=4,
        widths=(4, 6, 8, 12, 16),
        num_slots=4,
        host=lambda width: ResNet(input_shape=(3, 32, 32), num_classes=10, depth=8, width=width),
        tuned=False,
    ),
    Task(
        name="shakespeare",
        title="tiny shakespeare, 1,024 windows an epoch / gpt",
        overrides=(
            "data=tiny_shakespeare",
            "host=gpt",
            "kasmina.slots=[blocks.0.attention,blocks.0.mlp,blocks.1.attention,blocks.1.mlp]",
        ),
        epochs=16,
        width=16,
        widths=(16, 24, 32, 48, 64),
        step=4,  # so many heads share a width
        num_slots=4,
        host=lambda width: GPT(input_shape=(64,), num_classes=65, width=width),
        tuned=False,
    ),
    Task(
        name="adult",
        title="Adult / mlp",
        overrides=("data=adult", "host=mlp"),
        epochs=12,
        width=2,
        widths=(2, 3, 4, 8, 16),
        num_slots=2,
        host=lambda width: MLP(input_shape=(108,), num_classes=2, width=width),
        tuned=False,
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({row.name: row for row in _ROWS})
"""Every task by its name."""
