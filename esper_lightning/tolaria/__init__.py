"""Tolaria: the training loop. Module, hosts, data, learning rates."""

from esper_lightning.tolaria.data import Digits, SplitDataModule, TensorDataModule
from esper_lightning.tolaria.hosts import CNN, MLP
from esper_lightning.tolaria.module import Tolaria
from esper_lightning.tolaria.schedule import (
    Constant,
    Cosine,
    GroupwiseLR,
    Newcomer,
    WarmupStableDecay,
)

__all__ = [
    "CNN",
    "MLP",
    "Constant",
    "Cosine",
    "Digits",
    "GroupwiseLR",
    "Newcomer",
    "SplitDataModule",
    "TensorDataModule",
    "Tolaria",
    "WarmupStableDecay",
]
