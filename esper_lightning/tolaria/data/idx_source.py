"""Where a data set of four IDX files lies, and how to know that it is the right one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from esper_lightning.tolaria.data.download import download
from esper_lightning.tolaria.data.errors import DataDamaged, DataMissing


@dataclass(frozen=True, kw_only=True, slots=True)
class IdxFile:
    """One file, which may lie there packed (``name.gz``) or unpacked (``name``).

    Attributes:
        name: without ``.gz``.
        gz_sha256: checksum of the packed file as it is published.
        sha256: checksum of the unpacked file.
    """

    name: str
    gz_sha256: str
    sha256: str

    def find(self, folder: Path) -> Path | None:
        """Its path in ``folder``: packed if it is there in both forms, None if in neither."""
        candidates = (folder / f"{self.name}.gz", folder / self.name)
        return next((path for path in candidates if path.is_file()), None)

    def verify(self, path: Path) -> None:
        """Compare with the published file.

        Raises:
            DataDamaged: the checksum is another.
        """
        expected = self.gz_sha256 if path.suffix == ".gz" else self.sha256
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise DataDamaged(
                f"{path} is not the published file: its SHA-256 is {found}, expected {expected}. "
                f"Delete it and put the published one in its place, or let download=true fetch it. "
                f"verify=false reads data of your own in this format"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class IdxSource:
    """A data set of grey images and labels in four IDX files.

    Attributes:
        name: of the set, for errors and reports.
        folders: below a data folder, where the files are looked for before the data folder itself;
            a download goes to the first.
        mirrors: addresses of folders with the packed files, each ending in a slash.
        mean: of the pixels of all training images, in [0, 1].
        std: likewise.
        train_images, train_labels, test_images, test_labels: the files.
    """

    name: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    mean: float
    std: float
    train_images: IdxFile
    train_labels: IdxFile
    test_images: IdxFile
    test_labels: IdxFile

    @property
    def files(self) -> tuple[IdxFile, IdxFile, IdxFile, IdxFile]:
        """All four."""
        return self.train_images, self.train_labels, self.test_images, self.test_labels

    def find(self, data_dir: Path) -> Path:
        """The first folder that has all four files.

        Raises:
            DataMissing: there is none; says what is missing where, and what to do.
        """
        places = [*(data_dir / folder for folder in self.folders), data_dir]
        looked = []
        for place in places:
            missing = [file.name for file in self.files if file.find(place) is None]
            if not missing:
                return place
            some = len(missing) < len(self.files)
            looked.append(f"{place}: {'no ' + ', no '.join(missing) if some else 'none of them'}")
        names = "\n  ".join(file.name for file in self.files)
        raise DataMissing(
            f"{self.name} needs four files, each packed (.gz) or unpacked:\n  {names}\n"
            f"Looked in:\n  " + "\n  ".join(looked) + f"\nPut them into {places[0]}, name another "
            f"folder by data_dir, or let download=true fetch them (data.data_dir and "
            f"data.download=true on the command line of train.py)"
        )

    def fetch(self, data_dir: Path) -> None:
        """Download what is missing, unless some folder has all four files.

        Raises:
            DownloadFailed: no mirror gave a file.
        """
        try:
            self.find(data_dir)
        except DataMissing:
            folder = data_dir / self.folders[0]
            for file in self.files:
                if file.find(folder) is None:
                    download(
                        f"{file.name}.gz",
                        mirrors=self.mirrors,
                        sha256=file.gz_sha256,
                        folder=folder,
                    )
