"""Data modules with three disjoint splits."""

from esper_lightning.tolaria.data.digits import Digits
from esper_lightning.tolaria.data.labelled import LabelledTensors
from esper_lightning.tolaria.data.sampler import EpochShuffle
from esper_lightning.tolaria.data.splits import SplitDataModule, TensorDataModule
from esper_lightning.tolaria.data.stratify import Splits, stratified_sample, three_way_split

__all__ = [
    "Digits",
    "EpochShuffle",
    "LabelledTensors",
    "SplitDataModule",
    "Splits",
    "TensorDataModule",
    "stratified_sample",
    "three_way_split",
]
