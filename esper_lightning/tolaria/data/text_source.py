"""Where a text in one file lies, and how to know that it is the right one."""

from dataclasses import dataclass
from pathlib import Path

from esper_lightning.tolaria.data.checksum import check_sha256
from esper_lightning.tolaria.data.download import download
from esper_lightning.tolaria.data.errors import DataDamaged, DataMissing


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSource:
    """A text in one file.

    Attributes:
        name: of the set, for errors and reports.
        places: paths below a data folder, in the order in which they are looked at; a download goes
            to the first.
        mirrors: addresses of folders that hold the file under the name of the first place, each
            ending in a slash.
        num_bytes: of the published file.
        sha256: of the published file.
    """

    name: str
    places: tuple[str, ...]
    mirrors: tuple[str, ...]
    num_bytes: int
    sha256: str

    def find(self, data_dir: Path) -> Path:
        """The first place where a file is.

        Raises:
            DataMissing: there is none; says where was looked, and what to do.
        """
        paths = [data_dir / place for place in self.places]
        for path in paths:
            if path.is_file():
                return path
        looked = "\n  ".join(map(str, paths))
        raise DataMissing(
            f"{self.name} needs one text file. Looked for:\n  {looked}\nPut it there, name another "
            f"folder by data_dir, or let download=true fetch it (data.data_dir and "
            f"data.download=true on the command line of train.py)"
        )

    def fetch(self, data_dir: Path) -> None:
        """Download the file, unless it is in some place.

        Raises:
            DownloadFailed: no mirror gave it.
        """
        try:
            self.find(data_dir)
        except DataMissing:
            path = data_dir / self.places[0]
            download(path.name, mirrors=self.mirrors, sha256=self.sha256, folder=path.parent)

    def read(self, data_dir: Path, *, verify: bool) -> str:
        """The text, with line ends as they are in the file.

        Args:
            data_dir: data folder.
            verify: compare the file with the published one; False reads a text of your own.

        Raises:
            DataMissing: there is no file.
            DataDamaged: it is cut short, another one, or no UTF-8.
        """
        path = self.find(data_dir)
        content = path.read_bytes()
        if verify:
            if len(content) < self.num_bytes:
                raise DataDamaged(
                    f"{path} is cut short: {len(content)} bytes, the published file has "
                    f"{self.num_bytes}; put a whole copy in its place. verify=false reads a text "
                    f"of your own"
                )
            check_sha256(path, self.sha256)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise DataDamaged(f"{path} is no UTF-8 text ({error}); convert it") from error
