"""A million characters of Shakespeare, to be continued one by one."""

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_flag, check_number, check_whole
from esper_lightning.tolaria.data.folder import data_folder
from esper_lightning.tolaria.data.sampler import EpochWindows
from esper_lightning.tolaria.data.splits import SplitDataModule
from esper_lightning.tolaria.data.stratify import Splits
from esper_lightning.tolaria.data.text_source import TextSource
from esper_lightning.tolaria.data.tokens import TextWindows


class TinyShakespeare(SplitDataModule):
    """1,115,394 characters from the plays, 65 different ones; each is to be told from those before.

    The selection of Karpathy 2015 ("The Unreasonable Effectiveness of Recurrent Neural Networks").

    An example is a window of ``context`` characters, its labels the character that follows each of
    them. The text is split where it stands: its beginning is train, then comes val, then test; no
    window reaches from one into another. Windows of val and test follow each other without overlap,
    in order; what is left at the end is dropped.

    An epoch of training takes windows that do not overlap, cut at an offset of its own, in an order
    of its own: both depend on the seed and the epoch alone (:class:`EpochWindows`).

    Args:
        data_dir: folder in which the file is looked for, see :class:`TextSource`.
        download: fetch a missing file.
        verify: compare the file with the published checksum; False reads a UTF-8 text of your own,
            whose characters are then the vocabulary.
        batch_size: windows of a training batch.
        context: characters of a window.
        val_fraction: share of the characters that becomes val.
        test_fraction: share of the characters that becomes test.
        windows_per_epoch: training windows of an epoch, at most; None takes all that there are,
            about one for each ``context`` characters of train.
        subset: train on so many characters only, the first of train; None keeps all.
        seed: of the training order.
        num_workers: processes that fetch batches.

    Raises:
        InvalidArgument: an argument outside of what is allowed.
    """

    source: ClassVar[TextSource] = TextSource(
        name="tiny_shakespeare",
        places=(
            "tiny_shakespeare/input.txt",
            "tinyshakespeare/input.txt",
            "text/tinyshakespeare.txt",
            "input.txt",
        ),
        mirrors=("https://github.com/karpathy/char-rnn/raw/master/data/tinyshakespeare/",),
        num_bytes=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )
    """Which file, and where it comes from."""

    def __init__(
        self,
        *,
        data_dir: str | Path = "data",
        download: bool = False,
        verify: bool = True,
        batch_size: int = 16,
        context: int = 64,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        windows_per_epoch: int | None = 1024,
        subset: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        name = self.source.name
        check_whole(f"{name}: context", context, least=1)
        check_whole(f"{name}: windows_per_epoch", windows_per_epoch, or_none=True)
        check_whole(f"{name}: subset", subset, or_none=True)
        check_number(f"{name}: val_fraction", val_fraction)
        check_number(f"{name}: test_fraction", test_fraction)
        check_flag(f"{name}: download", download)
        check_flag(f"{name}: verify", verify)
        if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
            raise InvalidArgument(
                f"{name}: val_fraction and test_fraction must be above 0 and their sum below 1, "
                f"got {val_fraction} and {test_fraction}"
            )
        if windows_per_epoch is not None and windows_per_epoch < 1:
            raise InvalidArgument(
                f"{name}: windows_per_epoch must be at least 1, or null for all, got "
                f"{windows_per_epoch}"
            )
        super().__init__(
            name=name,
            input_shape=(context,),
            num_classes=None,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            label_shape=(context,),
        )
        self.data_dir = data_folder(name, data_dir)
        self.download = download
        self.verify = verify
        self.context = context
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.windows_per_epoch = windows_per_epoch
        self.subset = subset

    @property
    def num_classes(self) -> int:
        """Number of different characters in the whole file; reads it."""
        return len(self.vocabulary)

    @property
    def vocabulary(self) -> str:
        """Every character of the whole file once, sorted: the one with id 0 first."""
        return self._encoded[0]

    def prepare_data(self) -> None:
        """Fetch a missing file, if ``download`` allows it.

        Raises:
            DownloadFailed: no mirror gave it.
        """
        if self.download:
            self.source.fetch(self.data_dir)

    def load(self) -> Splits:
        """Cut the text into its three parts.

        Raises:
            DataMissing: the file is not there.
            DataDamaged: it is not what it should be.
            InvalidArgument: a part is shorter than a window, or ``subset`` longer than train.
        """
        _, ids = self._encoded
        num_test = round(self.test_fraction * len(ids))
        num_val = round(self.val_fraction * len(ids))
        first_test = len(ids) - num_test
        first_val = first_test - num_val
        train, val, test = ids[:first_val], ids[first_val:first_test], ids[first_test:]
        if self.subset is not None:
            if not 1 <= self.subset <= len(train):
                raise InvalidArgument(
                    f"{self.name}: subset must be between 1 and the {len(train)} characters of "
                    f"train, got {self.subset}"
                )
            train = train[: self.subset]
        if len(train) < 2 * self.context:
            raise InvalidArgument(
                f"{self.name} train: {len(train)} characters are too few for windows of "
                f"{self.context}, which take twice as many; take a smaller context, or more text"
            )
        return Splits(
            train=self._windows("train", train, stride=1),
            val=self._windows("val", val, stride=self.context),
            test=self._windows("test", test, stride=self.context),
        )

    def train_order(self, *, rank: int = 0, num_replicas: int = 1) -> EpochWindows:
        """Windows that do not overlap, shuffled; an index is where a window begins.

        Args:
            rank: of this process, below ``num_replicas``.
            num_replicas: number of ranks that share the windows.
        """
        num_starts = len(self.splits.train)
        whole = num_starts // self.context
        return EpochWindows(
            num_starts,
            length=self.context,
            num_windows=min(whole, self.windows_per_epoch or whole),
            seed=self.seed,
            rank=rank,
            num_replicas=num_replicas,
        )

    @cached_property
    def _encoded(self) -> tuple[str, Tensor]:
        """The vocabulary, and the whole text as ids ``(M,)`` int64."""
        # Shapes are asked for before there is a Trainer that would call the hook.
        self.prepare_data()
        text = self.source.read(self.data_dir, verify=self.verify)
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        different, ids = np.unique(points, return_inverse=True)
        return "".join(map(chr, different)), torch.from_numpy(ids).long()

    def _windows(self, split: str, ids: Tensor, *, stride: int) -> TextWindows:
        try:
            return TextWindows(
                ids, context=self.context, stride=stride, num_tokens=self.num_classes
            )
        except InvalidArgument as error:
            raise InvalidArgument(f"{self.name} {split}: {error}") from error
