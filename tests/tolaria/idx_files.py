"""Tiny IDX files in place of the real data sets."""

import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor

from esper_lightning.tolaria import MNIST, FashionMNIST

SOURCES = {data.source.name: data.source for data in (FashionMNIST, MNIST)}

TINY = ("data.verify=false", "data.num_val=20")
"""Overrides with which a run takes the files of :func:`write_idx_folder`."""


def write_idx(path: Path, values: Tensor, *, type_byte: int = 0x08) -> Path:
    """Write uint8 values of any shape; packed if the name ends in ``.gz``."""
    header = bytes([0, 0, type_byte, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    content = header + values.to(torch.uint8).numpy().tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The time in the header would make every file another one.
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_idx_folder(
    path: Path,
    name: str,
    num_train: int = 60,
    num_test: int = 20,
    *,
    folder: str | None = None,
    suffix: str = ".gz",
) -> Path:
    """Write the four files of a data set as a data folder has them.

    Images are random and no two alike; class ``i % 10`` belongs to image ``i``.

    Args:
        path: the data folder.
        name: of the set, ``fashion_mnist`` or ``mnist``.
        num_train: images of the training set.
        num_test: images of the test set.
        folder: below ``path``; None is the first in which the set is looked for.
        suffix: ``.gz`` or nothing.

    Returns:
        The folder with the four files.
    """
    source = SOURCES[name]
    there = path / (source.folders[0] if folder is None else folder)
    generator = torch.Generator().manual_seed(0)
    for images, labels, num in (
        (source.train_images, source.train_labels, num_train),
        (source.test_images, source.test_labels, num_test),
    ):
        pixels = torch.randint(0, 256, (num, 28, 28), generator=generator)
        write_idx(there / f"{images.name}{suffix}", pixels)
        write_idx(there / f"{labels.name}{suffix}", torch.arange(num) % 10)
    return there
