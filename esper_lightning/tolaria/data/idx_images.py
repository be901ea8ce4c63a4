"""Data modules over images in the original IDX files."""

from pathlib import Path
from typing import ClassVar

from esper_lightning.tolaria.data.errors import DataDamaged
from esper_lightning.tolaria.data.idx import read_idx
from esper_lightning.tolaria.data.idx_source import IdxFile, IdxSource
from esper_lightning.tolaria.data.pixels import LabelledPixels
from esper_lightning.tolaria.data.splits import SplitDataModule
from esper_lightning.tolaria.data.stratify import Splits, hold_out_val


class IdxImages(SplitDataModule):
    """Grey images of 28x28 pixels in ten classes, from four IDX files.

    A set is a subclass that names its :attr:`source`.

    The test split is the published test set. Val is cut out of the published training images, with
    the share of each class kept; the rest is train. Which image goes where depends on ``num_val``
    and ``split_seed`` alone, so that a smaller ``subset`` is measured on the same images.

    Pixels in [0, 1] are shifted and scaled by the set's published mean and standard deviation. In
    memory they are bytes: 55 MB for 70,000 images.

    Args:
        data_dir: folder in which the files are looked for, see :class:`IdxSource`.
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
            name=self.source.name,
            input_shape=(1, 28, 28),
            num_classes=10,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
        )
        self.data_dir = Path(data_dir).expanduser()
        self.download = download
        self.verify = verify
        self.num_val = num_val
        self.subset = subset
        self.split_seed = split_seed

    def prepare_data(self) -> None:
        """Fetch missing files, if ``download`` allows it.

        Raises:
            DownloadFailed: no mirror gave a file.
        """
        if self.download:
            self.source.fetch(self.data_dir)

    def load(self) -> Splits:
        """Read the four files.

        Raises:
            DataMissing: files are not there.
            DataDamaged: a file is not what it should be.
        """
        # Shapes are asked for before there is a Trainer that would call the hook.
        self.prepare_data()
        folder = self.source.find(self.data_dir)
        train = self._read(folder, self.source.train_images, self.source.train_labels)
        test = self._read(folder, self.source.test_images, self.source.test_labels)
        return hold_out_val(
            train, test, num_val=self.num_val, split_seed=self.split_seed, subset=self.subset
        )

    def _read(self, folder: Path, images: IdxFile, labels: IdxFile) -> LabelledPixels:
        tensors = []
        for file, num_dims in ((images, 3), (labels, 1)):
            path = file.find(folder)
            assert path is not None
            if self.verify:
                file.verify(path)
            tensors.append(read_idx(path, num_dims=num_dims))
        pixels, classes = tensors
        if len(pixels) != len(classes):
            raise DataDamaged(
                f"{self.name}: {images.name} holds {len(pixels)} images but {labels.name} "
                f"{len(classes)} labels, in {folder}; they must be of one set"
            )
        return LabelledPixels(
            pixels.unsqueeze(1), classes.long(), mean=self.source.mean, std=self.source.std
        )
