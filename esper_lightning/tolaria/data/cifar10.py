"""CIFAR-10: photographs of animals and vehicles."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from esper_lightning.leyline.arguments import check_flag
from esper_lightning.tolaria.data.byte_pickle import ByteArray, read_byte_pickle
from esper_lightning.tolaria.data.cifar_images import IMAGE_SHAPE, CifarImages, LabelledImages
from esper_lightning.tolaria.data.cifar_source import CifarSource
from esper_lightning.tolaria.data.errors import DataDamaged
from esper_lightning.tolaria.data.folder import data_folder


class CIFAR10(CifarImages):
    """50,000 training and 10,000 test images of animals and vehicles, from the python version.

    Krizhevsky 2009, "Learning multiple layers of features from tiny images". Splits, augmentation
    and scaling: :class:`CifarImages`.

    Args:
        data_dir: folder in which the files are looked for, see :class:`CifarSource`.
        download: fetch the archive if it is missing.
        verify: compare every file with the published checksum; False reads your own data in the
            same format.
        batch_size: of training.
        num_val: training images that become val.
        subset: keep only so many of the other training images; None keeps all.
        augment: crop and mirror training images at random.
        seed: of the training order and of the augmentation.
        split_seed: decides which image goes where, whatever the seed of the run.
        num_workers: processes that fetch batches.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    title = "CIFAR-10"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    source: ClassVar[CifarSource] = CifarSource(
        name=title,
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        archive_sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    )
    """Which files, and where they come from."""

    def __init__(
        self,
        *,
        data_dir: str | Path = "data",
        download: bool = False,
        verify: bool = True,
        batch_size: int = 128,
        num_val: int = 5000,
        subset: int | None = None,
        augment: bool = True,
        seed: int = 0,
        split_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_val=num_val,
            subset=subset,
            augment=augment,
            seed=seed,
            split_seed=split_seed,
            num_workers=num_workers,
        )
        check_flag(f"{self.name}: download", download)
        check_flag(f"{self.name}: verify", verify)
        self.data_dir = data_folder(self.name, data_dir)
        self.download = download
        self.verify = verify

    def prepare_data(self) -> None:
        """Fetch the archive if it is missing, if ``download`` allows it.

        Raises:
            DownloadFailed: no mirror gave it.
        """
        if self.download:
            self.source.fetch(self.data_dir)

    def read(self) -> tuple[LabelledImages, LabelledImages]:
        """Read the six batches.

        Raises:
            DataMissing: files are not there.
            DataDamaged: a file is not what it should be.
        """
        # Shapes are asked for before there is a Trainer that would call the hook.
        self.prepare_data()
        place = self.source.find(self.data_dir)
        contents = self.source.read(place, verify=self.verify)
        train, test = (
            [_batch(contents[name], what=str(place / name)) for name in names]
            for names in (self.source.train, self.source.test)
        )
        return _joined(train), _joined(test)


def _batch(content: bytes, *, what: str) -> tuple[NDArray[np.uint8], list[int]]:
    """Rows of pixels ``(N, 3072)``, all of red, then green, then blue; and classes."""
    table = read_byte_pickle(content, what=what)
    if not isinstance(table, dict):
        raise DataDamaged(f"{what} holds a {type(table).__name__}, expected a dictionary")
    # Keys are strings of Python 2, thus bytes, in the published files.
    named = {key.decode() if isinstance(key, bytes) else key: value for key, value in table.items()}
    data, labels = named.get("data"), named.get("labels")
    width = int(np.prod(IMAGE_SHAPE))
    rows = data.values if isinstance(data, ByteArray) else None
    if rows is None or rows.ndim != 2 or rows.shape[1] != width:
        found = type(data).__name__ if rows is None else f"an array of shape {rows.shape}"
        raise DataDamaged(
            f"{what}: 'data' is {found}, expected an array of bytes of shape (N, {width})"
        )
    if not isinstance(labels, list) or not all(
        type(label) is int and 0 <= label <= 255 for label in labels
    ):
        raise DataDamaged(f"{what}: 'labels' must be a list of the classes of its images, 0 to 9")
    if len(labels) != len(rows):
        raise DataDamaged(
            f"{what} holds {len(rows)} images but {len(labels)} labels; they must be of one set"
        )
    return rows, labels


def _joined(batches: list[tuple[NDArray[np.uint8], list[int]]]) -> LabelledImages:
    pixels = np.concatenate([rows for rows, _ in batches])
    classes = [label for _, labels in batches for label in labels]
    return LabelledImages(torch.from_numpy(pixels).reshape(-1, *IMAGE_SHAPE), torch.tensor(classes))
