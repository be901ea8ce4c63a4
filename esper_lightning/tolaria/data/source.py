"""Where the files of a data set lie, and how to know that they are the right ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from esper_lightning.tolaria.data.checksum import check_sha256
from esper_lightning.tolaria.data.download import download
from esper_lightning.tolaria.data.errors import DataMissing


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFile:
    """One file, which may lie there in several forms, say packed or unpacked.

    Attributes:
        name: of the file, for errors.
        forms: SHA-256 of each form by its file name; the first is preferred and downloaded.
    """

    name: str
    forms: Mapping[str, str]

    def find(self, folder: Path) -> Path | None:
        """Its path in ``folder``: the first form that is there, None if there is none."""
        candidates = (folder / form for form in self.forms)
        return next((path for path in candidates if path.is_file()), None)

    def verify(self, path: Path) -> None:
        """Compare with the published file.

        Args:
            path: as :meth:`find` gives it.

        Raises:
            DataDamaged: the checksum is another.
        """
        check_sha256(path, self.forms[path.name])

    def fetch(self, folder: Path, mirrors: Sequence[str]) -> None:
        """Download the preferred form, unless some form is there.

        Raises:
            DownloadFailed: no mirror gave it.
        """
        if self.find(folder) is None:
            name, sha256 = next(iter(self.forms.items()))
            download(name, mirrors=mirrors, sha256=sha256, folder=folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The files of a data set.

    Attributes:
        name: of the set, for errors and reports.
        folders: below a data folder, where the files are looked for before the data folder itself;
            a download goes to the first.
        mirrors: addresses of folders with the files, each ending in a slash.
    """

    name: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        """All of them."""
        raise NotImplementedError(f"{type(self).__name__} must name its files")

    def find(self, data_dir: Path) -> Path:
        """The first folder that has every file.

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
        names = "\n  ".join(" or ".join(file.forms) for file in self.files)
        raise DataMissing(
            f"{self.name} needs {len(self.files)} files:\n  {names}\n"
            f"Looked in:\n  " + "\n  ".join(looked) + f"\nPut them into {places[0]}, name another "
            f"folder by data_dir, or let download=true fetch them (data.data_dir and "
            f"data.download=true on the command line of train.py)"
        )

    def fetch(self, data_dir: Path) -> None:
        """Download what is missing, unless some folder has every file.

        Raises:
            DownloadFailed: no mirror gave a file.
        """
        try:
            self.find(data_dir)
        except DataMissing:
            for file in self.files:
                file.fetch(data_dir / self.folders[0], self.mirrors)
