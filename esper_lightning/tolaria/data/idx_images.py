"""Data modules over images in the original IDX files."""

from pathlib import Path
from typing import ClassVar

from esper_lightning.tolaria.data.errors import DataDamaged
from esper_lightning.tolaria.data.idx import read_idx
from esper_lightning.tolaria.data.idx_source import IdxSource
from esper_lightning.tolaria.data.pixels import LabelledPixels
from esper_lightning.tolaria.data.published import PublishedData
from esper_lightning.tolaria.data.source import PublishedFile


class IdxImages(PublishedData):
    """Grey images of 28x28 pixels in ten classes, from four IDX files.

    A set is a subclass that names its :attr:`source`.

    Pixels in [0, 1] are shifted and scaled by the set's published mean and standard deviation. In
    memory they are bytes: 55 MB for 70,000 images.

    Args:
        data_dir: folder in which the files are looked for, see :class:`Source`.
        download: fetch missing files.
        verify: compare every file with the published checksum; False reads your own data in the
            same format.
        batch_size: of training.
        num_val: training images that become val.
        subset: keep only so many of the other training images; None keeps all.
        seed: of the training order.
        split_seed: decides which image goes where, whatever the seed of the run.
        num_workers: processes that fetch batches.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    source: ClassVar[IdxSource]
    """Which files, and where they come from."""

    def __init__(
        self,
        *,
        data_dir: str | Path = "data",
        download: bool = False,
        verify: bool = True,
        batch_size: int = 64,
        num_val: int = 5000,
        subset: int | None = None,
        seed: int = 0,
        split_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            input_shape=(1, 28, 28),
            num_classes=10,
            data_dir=data_dir,
            download=download,
            verify=verify,
            batch_size=batch_size,
            num_val=num_val,
            subset=subset,
            seed=seed,
            split_seed=split_seed,
            num_workers=num_workers,
        )

    def read(self, folder: Path) -> tuple[LabelledPixels, LabelledPixels]:
        """All training and test images, from the four files."""
        source = self.source
        train = self._examples(folder, source.train_images, source.train_labels)
        return train, self._examples(folder, source.test_images, source.test_labels)

    def _examples(
        self, folder: Path, images: PublishedFile, labels: PublishedFile
    ) -> LabelledPixels:
        pixels = read_idx(self.checked(images, folder), num_dims=3)
        classes = read_idx(self.checked(labels, folder), num_dims=1)
        if len(pixels) != len(classes):
            raise DataDamaged(
                f"{self.name}: {images.name} holds {len(pixels)} images but {labels.name} "
                f"{len(classes)} labels, in {folder}; they must be of one set"
            )
        return LabelledPixels(
            pixels.unsqueeze(1), classes.long(), mean=self.source.mean, std=self.source.std
        )
