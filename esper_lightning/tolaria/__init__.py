"""Tolaria: the training loop. Module, hosts, data, learning rates.

Design: docs/design/detailed_design/01-tolaria.md
"""

from esper_lightning.tolaria.data import (
    CIFAR10,
    MNIST,
    Adult,
    CIFAR10Jpeg,
    Digits,
    FashionMNIST,
    SplitDataModule,
    TensorDataModule,
    TinyShakespeare,
)
from esper_lightning.tolaria.health import Alarm, Health, HealthRules, Reading
from esper_lightning.tolaria.hosts import CNN, GPT, MLP, ResNet
from esper_lightning.tolaria.module import Tolaria
from esper_lightning.tolaria.schedule import (
    Constant,
    Cosine,
    GroupwiseLR,
    Newcomer,
    WarmupStableDecay,
)
from esper_lightning.tolaria.snapshot import Snapshot, is_finite

__all__ = [
    "CIFAR10",
    "CNN",
    "GPT",
    "MLP",
    "MNIST",
    "Adult",
    "Alarm",
    "CIFAR10Jpeg",
    "Constant",
    "Cosine",
    "Digits",
    "FashionMNIST",
    "GroupwiseLR",
    "Health",
    "HealthRules",
    "Newcomer",
    "Reading",
    "ResNet",
    "Snapshot",
    "SplitDataModule",
    "TensorDataModule",
    "TinyShakespeare",
    "Tolaria",
    "WarmupStableDecay",
    "is_finite",
]
