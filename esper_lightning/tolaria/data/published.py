"""Data modules of sets that are published as files, with a test set of their own."""

from pathlib import Path
from typing import ClassVar

from esper_lightning.leyline.arguments import check_flag, check_whole
from esper_lightning.tolaria.data.folder import data_folder
from esper_lightning.tolaria.data.labelled import LabelledTensors
from esper_lightning.tolaria.data.source import PublishedFile, Source
from esper_lightning.tolaria.data.splits import SplitDataModule
from esper_lightning.tolaria.data.stratify import Splits, hold_out_val


class PublishedData(SplitDataModule):
    """Examples from files; val is cut out of the published training examples.

    A set is a subclass that names its :attr:`source` and defines :meth:`read`. The test split is
    the published test set. Val has the share of each class that all training examples have; the
    rest is train. Which example goes where depends on ``num_val`` and ``split_seed`` alone, so that
    a smaller ``subset`` is measured on the same examples.

    Args:
        input_shape: of one input.
        num_classes: labels are 0 to ``num_classes - 1``.
        data_dir: folder in which the files are looked for, see :class:`Source`.
        download: fetch missing files.
        verify: compare every file with the published checksum; False reads your own data in the
            same format.
        batch_size: of training.
        num_val: training examples that become val.
        subset: keep only so many of the other training examples; None keeps all.
        seed: of the training order.
        split_seed: decides which example goes where, whatever the seed of the run.
        num_workers: processes that fetch batches.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    source: ClassVar[Source]
    """Which files, and where they come from."""

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_classes: int,
        data_dir: str | Path,
        download: bool,
        verify: bool,
        batch_size: int,
        num_val: int,
        subset: int | None,
        seed: int,
        split_seed: int,
        num_workers: int,
    ) -> None:
        super().__init__(
            name=self.source.name,
            input_shape=input_shape,
            num_classes=num_classes,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
        )
        check_flag(f"{self.name}: download", download)
        check_flag(f"{self.name}: verify", verify)
        check_whole(f"{self.name}: num_val", num_val)
        check_whole(f"{self.name}: subset", subset, or_none=True)
        check_whole(f"{self.name}: split_seed", split_seed)
        self.data_dir = data_folder(self.name, data_dir)
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

    def read(self, folder: Path) -> tuple[LabelledTensors, LabelledTensors]:
        """All training examples, and those of the test set.

        Args:
            folder: that has every file.

        Raises:
            DataDamaged: a file is not what it should be.
        """
        raise NotImplementedError(f"{type(self).__name__} must define read")

    def load(self) -> Splits:
        """Read the files and split what they hold.

        Raises:
            DataMissing: files are not there.
            DataDamaged: a file is not what it should be.
        """
        # Shapes are asked for before there is a Trainer that would call the hook.
        self.prepare_data()
        train, test = self.read(self.source.find(self.data_dir))
        return hold_out_val(
            train, test, num_val=self.num_val, split_seed=self.split_seed, subset=self.subset
        )

    def checked(self, file: PublishedFile, folder: Path) -> Path:
        """Where a file lies, after its checksum was compared if ``verify`` asks for it.

        Args:
            file: of the source.
            folder: that has it.

        Raises:
            DataDamaged: it is not the published file.
        """
        path = file.find(folder)
        assert path is not None
        if self.verify:
            file.verify(path)
        return path
