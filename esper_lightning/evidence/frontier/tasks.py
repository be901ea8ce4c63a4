"""The tasks of the benchmark: which data, which host, how long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from esper_lightning.evidence.flops import sample_flops
from esper_lightning.tolaria import CNN, GPT, MLP, ResNet

Shape = Mapping[str, float]
"""Arguments of a host, as in ``host.*`` of ``train.py``."""

LIMITS = ("tamiyo.policy.budget.max_growth", "tamiyo.policy.budget.max_flops_growth")
"""What a policy may add, in multiples of the host's parameters and FLOPs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A data set, a host that is too small for it, and a budget of epochs and growth.

    Attributes:
        name: in rows, tables and folders.
        title: in tables.
        overrides: of ``train.py``, the same in every arm.
        epochs: of a whole run.
        host: the host of a shape.
        shape: of the host that grows.
        inputs: a batch of what it takes.
        dimension: the argument that makes the host larger in the direction in which it grows.
        sizes: of hosts in that dimension that a user who does not know the size would try; the
            first is that of the host that grows.
        step: between two sizes that the host can have.
        wider: shapes of hosts that are larger in other ways, the usual ones.
        num_slots: in which it can grow.
        tuned: whether defaults were chosen on it; if not, it is reported once.
        growth: what a policy may add, in multiples of the host's parameters and FLOPs.
    """

    name: str
    title: str
    overrides: tuple[str, ...]
    epochs: int
    host: Callable[..., nn.Module]
    shape: Shape
    inputs: Tensor
    dimension: str
    sizes: tuple[float, ...]
    step: float
    wider: tuple[Shape, ...]
    num_slots: int
    tuned: bool
    growth: float = 12

    def sized(self, size: float) -> Shape:
        """The host that grows, with another size."""
        return {**self.shape, self.dimension: size}

    def parameters(self, shape: Shape) -> int:
        """Of the host of a shape."""
        return sum(parameter.numel() for parameter in self.host(**shape).parameters())

    def flops(self, shape: Shape) -> float:
        """Of one sample, forward and backward, with the host of a shape."""
        return sample_flops(self.host(**shape), self.inputs)

    def budget(self) -> list[str]:
        """The overrides of ``train.py`` for a policy that grows: what it may add."""
        return [f"++{limit}={self.growth:g}" for limit in LIMITS]

    @staticmethod
    def shaped(shape: Shape) -> list[str]:
        """The overrides of ``train.py`` for a host of a shape."""
        return [f"host.{name}={value:g}" for name, value in shape.items()]


NUM_SIZES, NUM_WIDER = 5, 3
"""How many hosts of each kind every task names."""

_ROWS = (
    Task(
        name="digits",
        title="digits / cnn",
        overrides=("data=digits", "host=cnn", "kasmina.slots=[features.2,features.4]"),
        epochs=12,
        host=partial(CNN, input_shape=(1, 8, 8), num_classes=10),
        shape={"width": 4, "inner_ratio": 0.25},
        inputs=torch.zeros(1, 1, 8, 8),
        dimension="inner_ratio",
        sizes=(0.25, 0.75, 1.5, 3.0, 6.0),
        step=0.25,
        wider=(
            {"width": 8, "inner_ratio": 0.25},
            {"width": 12, "inner_ratio": 0.25},
            {"width": 8, "inner_ratio": 1.0},
        ),
        num_slots=2,
        tuned=True,
    ),
    Task(
        name="fashion_6k",
        title="Fashion-MNIST, 6,000 images / cnn",
        overrides=(
            "data=fashion_mnist",
            "data.subset=6000",
            "host=cnn",
            "kasmina.slots=[features.2,features.4]",
        ),
        epochs=12,
        host=partial(CNN, input_shape=(1, 28, 28), num_classes=10),
        shape={"width": 8, "inner_ratio": 0.25},
        inputs=torch.zeros(1, 1, 28, 28),
        dimension="inner_ratio",
        sizes=(0.25, 0.75, 1.5, 3.0, 6.0),
        step=0.125,
        wider=(
            {"width": 12, "inner_ratio": 0.25},
            {"width": 16, "inner_ratio": 0.25},
            {"width": 12, "inner_ratio": 1.0},
        ),
        num_slots=2,
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
            "kasmina.slots=[stages.0.0,stages.1.0,stages.2.0]",
        ),
        epochs=12,
        host=partial(ResNet, input_shape=(3, 32, 32), num_classes=10, depth=8),
        shape={"width": 4, "inner_ratio": 0.25},
        inputs=torch.zeros(1, 3, 32, 32),
        dimension="inner_ratio",
        sizes=(0.25, 0.5, 1.0, 2.0, 4.0),
        step=0.25,
        wider=(
            {"width": 6, "inner_ratio": 0.5},
            {"width": 8, "inner_ratio": 0.25},
            {"width": 8, "inner_ratio": 1.0},
        ),
        num_slots=3,
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
        host=partial(GPT, input_shape=(64,), num_classes=65),
        shape={"width": 32, "mlp_ratio": 0.25},
        inputs=torch.zeros(1, 64, dtype=torch.long),
        dimension="mlp_ratio",
        sizes=(0.25, 1.0, 2.0, 4.0, 8.0),
        step=0.25,
        wider=(
            {"width": 40, "mlp_ratio": 8.0},
            {"width": 48, "mlp_ratio": 4.0},
            {"width": 48, "mlp_ratio": 8.0},
        ),
        num_slots=2,
        tuned=False,
    ),
    Task(
        name="adult",
        title="Adult / mlp",
        overrides=("data=adult", "host=mlp", "kasmina.slots=[layers.0,layers.1]"),
        epochs=12,
        host=partial(MLP, input_shape=(108,), num_classes=2),
        shape={"width": 2, "depth": 2},
        inputs=torch.zeros(1, 108),
        dimension="width",
        sizes=(2, 3, 4, 8, 16),
        step=1,
        wider=({"width": 3, "depth": 3}, {"width": 4, "depth": 3}, {"width": 8, "depth": 3}),
        num_slots=2,
        tuned=False,
    ),
)

TASKS: Mapping[str, Task] = MappingProxyType({row.name: row for row in _ROWS})
"""Every task by its name."""
