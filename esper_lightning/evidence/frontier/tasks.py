"""The tasks of the benchmark: which data, which host, how long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from esper_lightning.evidence.flops import sample_flops
from esper_lightning.tolaria import CNN, GPT, MLP, ResNet


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A data set, a host that is too small for it, and a budget of epochs.

    Attributes:
        name: in rows, tables and folders.
        title: in tables.
        overrides: of ``train.py``, the same in every arm.
        epochs: of a whole run.
        dimension: the key of ``train.py`` that makes the host larger, in the direction in which it
            grows, so that a larger host is the strongest rival.
        size: of the host that grows, in that dimension.
        sizes: of hosts that a user who does not know the size would try.
        step: between two sizes that the host can have.
        num_slots: in which it can grow.
        host: the host of a size.
        inputs: a batch of what it takes.
        tuned: whether defaults were chosen on it; if not, it is reported once.
    """

    name: str
    title: str
    overrides: tuple[str, ...]
    epochs: int
    dimension: str
    size: float
    sizes: tuple[float, ...]
    step: float
    num_slots: int
    host: Callable[[float], nn.Module]
    inputs: Tensor
    tuned: bool

    def parameters(self, size: float) -> int:
        """Of the host of a size."""
        return sum(parameter.numel() for parameter in self.host(size).parameters())

    def flops(self, size: float) -> float:
        """Of one sample, forward and backward, with the host of a size."""
        return sample_flops(self.host(size), self.inputs)

    def sized(self, size: float) -> str:
        """The override of ``train.py`` for a host of that size."""
        return f"{self.dimension}={size:g}"


BUDGET = tuple(f"++tamiyo.policy.budget.{limit}=12" for limit in ("max_growth", "max_flops_growth"))
"""Overrides of ``train.py`` for a policy that grows: what it may add, as multiples of the host's
parameters and FLOPs, the same on every task."""

INNER = "host.inner_ratio"
"""Channels inside of residual blocks."""

_ROWS = (
    Task(
        name="digits",
        title="digits / cnn",
        overrides=(
            "data=digits",
            "host=cnn",
            "host.width=4",
            "kasmina.slots=[features.2,features.4]",
        ),
        epochs=12,
        dimension=INNER,
        size=0.25,
        sizes=(0.25, 0.75, 1.5, 3.0, 6.0),
        step=0.25,
        num_slots=2,
        host=lambda size: CNN(input_shape=(1, 8, 8), num_classes=10, width=4, inner_ratio=size),
        inputs=torch.zeros(1, 1, 8, 8),
        tuned=True,
    ),
    Task(
        name="fashion_6k",
        title="Fashion-MNIST, 6,000 images / cnn",
        overrides=(
            "data=fashion_mnist",
            "data.subset=6000",
            "host=cnn",
            "host.width=8",
            "kasmina.slots=[features.2,features.4]",
        ),
        epochs=12,
        dimension=INNER,
        size=0.25,
        sizes=(0.25, 0.75, 1.5, 3.0, 6.0),
        step=0.125,
        num_slots=2,
        host=lambda size: CNN(input_shape=(1, 28, 28), num_classes=10, width=8, inner_ratio=size),
        inputs=torch.zeros(1, 1, 28, 28),
        tuned=True,
    ),
    Task(
        name="cifar10_jpeg",
        title="CIFAR-10 (JPEG q75), 3,000 images / resnet 8",
        overrides=(
            "data=cifar10_jpeg",
            "data.subset=3000",
            "data.num_val=1000",
            "host=resnet",
            "host.width=4",
            "kasmina.slots=[stages.0.0,stages.1.0,stages.2.0]",
        ),
        epochs=12,
        dimension=INNER,
        size=0.25,
        sizes=(0.25, 0.5, 1.0, 2.0, 4.0),
        step=0.25,
        num_slots=3,
        host=lambda size: ResNet(
            input_shape=(3, 32, 32), num_classes=10, depth=8, width=4, inner_ratio=size
        ),
        inputs=torch.zeros(1, 3, 32, 32),
        tuned=False,
    ),
    Task(
        name="shakespeare",
        title="tiny shakespeare, 1,024 windows an epoch / gpt",
        overrides=(
            "data=tiny_shakespeare",
            "host=gpt",
            "kasmina.slots=[blocks.0.mlp,blocks.1.mlp]",
        ),
        epochs=12,
        dimension="host.mlp_ratio",
        size=0.25,
        sizes=(0.25, 1.0, 2.0, 4.0, 8.0),
        step=0.25,
        num_slots=2,
        host=lambda size: GPT(input_shape=(64,), num_classes=65, mlp_ratio=size),
        inputs=torch.zeros(1, 64, dtype=torch.long),
        tuned=False,
    ),
    Task(
        name="adult",
        title="Adult / mlp",
        overrides=("data=adult", "host=mlp", "kasmina.slots=[layers.0,layers.1]"),
        epochs=12,
        dimension="host.width",
        size=2,
        sizes=(2, 3, 4, 8, 16),
        step=1,
        num_slots=2,
        host=lambda size: MLP(input_shape=(108,), num_classes=2, width=int(size)),
        inputs=torch.zeros(1, 108),
        tuned=False,
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({row.name: row for row in _ROWS})
"""Every task by its name."""
