"""CIFAR-10 as JPEG images of quality 75: not the pixels that were published."""

import hashlib
from pathlib import Path
from typing import ClassVar

import torch

from esper_lightning.leyline.arguments import check_flag
from esper_lightning.tolaria.data.cifar_images import IMAGE_SHAPE, CifarImages, LabelledImages
from esper_lightning.tolaria.data.errors import DataDamaged, DataMissing
from esper_lightning.tolaria.data.folder import data_folder
from esper_lightning.tolaria.data.packed_jpegs import read_packed_jpegs
from esper_lightning.tolaria.data.pixel_cache import USER_CACHE, cached_pixels


class CIFAR10Jpeg(CifarImages):
    """The images of CIFAR-10 after lossy compression, in one packed file.

    For comparing methods with each other where the published files are not at hand; accuracies are
    not those of :class:`CIFAR10`, and reports call it "CIFAR-10 (JPEG q75)". Splits, augmentation
    and scaling: :class:`CifarImages`.

    Decoding takes Pillow about 20 seconds. The pixels, 184 MB, are kept for the next time in a file
    that is named after the checksum of the packed one.

    Args:
        data_dir: folder with ``cifar10/cifar10_jpegq75_packed.npz``, or with that file itself.
        cache_dir: folder in which decoded pixels are kept; None is that of the packed file, or
            ``~/.cache/esper_lightning`` where it cannot be written to.
        verify: compare the file with its checksum; False reads your own data in the same format.
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

    title = "CIFAR-10 (JPEG q75)"
    mean = (0.4913, 0.4821, 0.4465)
    std = (0.2452, 0.2428, 0.2606)
    file: ClassVar[str] = "cifar10_jpegq75_packed.npz"
    """In the folder ``cifar10`` of a data folder, or in the data folder itself."""
    sha256: ClassVar[str] = "06617f95ea664a77a7b28e364e8a1104252677503bb5a4dd3c38825a692d148f"
    """Of the packed file."""

    def __init__(
        self,
        *,
        data_dir: str | Path = "data",
        cache_dir: str | Path | None = None,
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
        check_flag(f"{self.name}: verify", verify)
        self.data_dir = data_folder(self.name, data_dir)
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.verify = verify

    def read(self) -> tuple[LabelledImages, LabelledImages]:
        """Read the packed file, and its pixels as they were decoded before or are now.

        Raises:
            DataMissing: the file is not there.
            DataDamaged: it is not what it should be.
            InvalidArgument: Pillow is needed, and not installed.
        """
        path = self._find()
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if self.verify and found != self.sha256:
            raise DataDamaged(
                f"{path} is not the {self.title} that this was written for: its SHA-256 is "
                f"{found}, expected {self.sha256}. Put that file in its place; verify=false reads "
                f"data of your own in this format"
            )
        parts = dict(zip(("train", "test"), read_packed_jpegs(path, "train", "test"), strict=True))
        own = (path.parent, USER_CACHE.expanduser())
        pixels = cached_pixels(
            f"{path.stem}_{found[:16]}_pixels.npz",
            folders=own if self.cache_dir is None else (self.cache_dir,),
            shapes={name: (len(part.labels), *IMAGE_SHAPE) for name, part in parts.items()},
            make=lambda: {name: part.decoded(size=IMAGE_SHAPE[-1]) for name, part in parts.items()},
        )
        train, test = (
            LabelledImages(torch.from_numpy(pixels[name]), torch.from_numpy(part.labels))
            for name, part in parts.items()
        )
        return train, test

    def _find(self) -> Path:
        places = [self.data_dir / "cifar10" / self.file, self.data_dir / self.file]
        for place in places:
            if place.is_file():
                return place
        looked = "\n  ".join(map(str, places))
        raise DataMissing(
            f"{self.title} needs one file, which cannot be downloaded; looked for\n  {looked}\n"
            f"Put it there, or name another folder by data_dir (data.data_dir on the command line "
            f"of train.py). The published images are data=cifar10"
        )
