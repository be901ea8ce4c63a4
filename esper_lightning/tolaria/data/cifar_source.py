"""Where the files of CIFAR-10 lie, and how to know that they are the right ones."""

import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from esper_lightning.tolaria.data.download import download
from esper_lightning.tolaria.data.errors import DataDamaged, DataMissing

FOLDER = "cifar-10-batches-py"
"""Of the unpacked files, also within the archive."""

SUBFOLDER = "cifar10"
"""Of a data folder, looked in before the data folder itself; downloads go there."""

MAX_BYTES = 64 * 2**20
"""Of one unpacked file; those that are published have 30 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CifarSource:
    """A data set of colour images in pickled batches, in one archive or unpacked.

    Attributes:
        name: of the set, for errors and reports.
        archive: name of the archive.
        archive_md5: its checksum as its authors publish it.
        archive_sha256: likewise, for downloads.
        mirrors: addresses of folders with the archive, each ending in a slash.
        train: checksums (MD5) of the training batches by name, in the order in which they are read.
        test: of the test batch.
    """

    name: str
    archive: str
    archive_md5: str
    archive_sha256: str
    mirrors: tuple[str, ...]
    train: Mapping[str, str]
    test: Mapping[str, str]

    def find(self, data_dir: Path) -> Path:
        """The first folder that has all batches, or the archive where that comes before.

        Raises:
            DataMissing: there is neither; says what is missing where, and what to do.
        """
        looked = []
        for place in self._places(data_dir):
            if place.name == self.archive:
                if place.is_file():
                    return place
                looked.append(f"{place}: no such file")
                continue
            missing = [name for name in self._batches if not (place / name).is_file()]
            if not missing:
                return place
            some = len(missing) < len(self._batches)
            looked.append(f"{place}: {'no ' + ', no '.join(missing) if some else 'none of them'}")
        raise DataMissing(
            f"{self.name} needs its python version, as {self.archive} or unpacked, the files\n  "
            + "\n  ".join(self._batches)
            + "\nLooked in:\n  "
            + "\n  ".join(looked)
            + f"\nPut {self.archive} into {data_dir / SUBFOLDER}, name another folder by data_dir, "
            f"or let download=true fetch it (data.data_dir and data.download=true on the command "
            f"line of train.py)"
        )

    def fetch(self, data_dir: Path) -> None:
        """Download the archive, unless it or the batches are there.

        Raises:
            DownloadFailed: no mirror gave it.
        """
        try:
            self.find(data_dir)
        except DataMissing:
            download(
                self.archive,
                mirrors=self.mirrors,
                sha256=self.archive_sha256,
                folder=data_dir / SUBFOLDER,
            )

    def read(self, place: Path, *, verify: bool) -> dict[str, bytes]:
        """The content of every batch by name.

        Args:
            place: as :meth:`find` gives it.
            verify: compare with the published checksums.

        Raises:
            DataDamaged: a checksum is another, or the archive cannot be unpacked.
        """
        if place.name == self.archive:
            if verify:
                with place.open("rb") as file:
                    _compare(place, hashlib.file_digest(file, _md5).hexdigest(), self.archive_md5)
            return self._unpacked(place)
        contents = {name: (place / name).read_bytes() for name in self._batches}
        if verify:
            for name, content in contents.items():
                _compare(place / name, _md5(content).hexdigest(), self._batches[name])
        return contents

    @property
    def _batches(self) -> dict[str, str]:
        return {**self.train, **self.test}

    def _places(self, data_dir: Path) -> list[Path]:
        folders = (data_dir / SUBFOLDER, data_dir)
        pairs = [place for folder in folders for place in (folder / FOLDER, folder / self.archive)]
        return [*pairs, data_dir]

    def _unpacked(self, path: Path) -> dict[str, bytes]:
        """Batches of the archive, in memory: nothing is written, wherever its names may point."""
        contents: dict[str, bytes] = {}
        try:
            with tarfile.open(path, "r:gz") as archive:
                for member in archive:
                    folder, _, name = member.name.rpartition("/")
                    file = archive.extractfile(member) if member.isreg() else None
                    if folder == FOLDER and name in self._batches and file is not None:
                        contents[name] = file.read(MAX_BYTES)
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise DataDamaged(
                f"{path} cannot be unpacked ({error}); put a whole copy in its place"
            ) from error
        missing = [name for name in self._batches if name not in contents]
        if missing:
            raise DataDamaged(
                f"{path} holds no {', no '.join(f'{FOLDER}/{name}' for name in missing)}; put the "
                f"published archive in its place"
            )
        return contents


def _md5(content: bytes = b"") -> "hashlib._Hash":
    # Against damage, not against an attacker: pickles are read by a reader that trusts none.
    return hashlib.md5(content, usedforsecurity=False)


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DataDamaged(
            f"{path} is not the published file: its MD5 is {found}, expected {expected}. Delete it "
            f"and put the published one in its place, or let download=true fetch it. verify=false "
            f"reads data of your own in this format"
        )
