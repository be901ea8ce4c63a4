"""Data modules with three disjoint splits."""

from esper_lightning.tolaria.data.adult import Adult, AdultSource
from esper_lightning.tolaria.data.augmented import AugmentedPixels
from esper_lightning.tolaria.data.cifar10 import CIFAR10
from esper_lightning.tolaria.data.cifar10_jpeg import CIFAR10Jpeg
from esper_lightning.tolaria.data.cifar_images import CifarImages, LabelledImages
from esper_lightning.tolaria.data.cifar_source import CifarSource
from esper_lightning.tolaria.data.digits import Digits
from esper_lightning.tolaria.data.errors import DataDamaged, DataMissing, DownloadFailed
from esper_lightning.tolaria.data.fashion_mnist import FashionMNIST
from esper_lightning.tolaria.data.idx import read_idx
from esper_lightning.tolaria.data.idx_images import IdxImages
from esper_lightning.tolaria.data.idx_source import IdxSource, idx_file
from esper_lightning.tolaria.data.labelled import LabelledTensors
from esper_lightning.tolaria.data.mnist import MNIST
from esper_lightning.tolaria.data.pixels import LabelledPixels
from esper_lightning.tolaria.data.published import PublishedData
from esper_lightning.tolaria.data.sampler import EachOnce, EpochDraws, EpochShuffle, EpochWindows
from esper_lightning.tolaria.data.source import PublishedFile, Source
from esper_lightning.tolaria.data.splits import SplitDataModule, TensorDataModule
from esper_lightning.tolaria.data.stratify import (
    Splits,
    hold_out_val,
    stratified_sample,
    three_way_split,
)
from esper_lightning.tolaria.data.text_source import TextSource
from esper_lightning.tolaria.data.tiny_shakespeare import TinyShakespeare
from esper_lightning.tolaria.data.tokens import LabelledIds, TextWindows

__all__ = [
    "CIFAR10",
    "MNIST",
    "Adult",
    "AdultSource",
    "AugmentedPixels",
    "CIFAR10Jpeg",
    "CifarImages",
    "CifarSource",
    "DataDamaged",
    "DataMissing",
    "Digits",
    "DownloadFailed",
    "EachOnce",
    "EpochDraws",
    "EpochShuffle",
    "EpochWindows",
    "FashionMNIST",
    "IdxImages",
    "IdxSource",
    "LabelledIds",
    "LabelledImages",
    "LabelledPixels",
    "LabelledTensors",
    "PublishedData",
    "PublishedFile",
    "Source",
    "SplitDataModule",
    "Splits",
    "TensorDataModule",
    "TextSource",
    "TextWindows",
    "TinyShakespeare",
    "hold_out_val",
    "idx_file",
    "read_idx",
    "stratified_sample",
    "three_way_split",
]
