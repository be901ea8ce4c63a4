"""The files of a data set of grey images, in IDX format."""

from dataclasses import dataclass

from esper_lightning.tolaria.data.source import PublishedFile, Source


def idx_file(*, name: str, gz_sha256: str, sha256: str) -> PublishedFile:
    """One file, which may lie there packed (``name.gz``) or unpacked (``name``).

    Args:
        name: without ``.gz``.
        gz_sha256: checksum of the packed file as it is published.
        sha256: checksum of the unpacked file.
    """
    return PublishedFile(name=name, forms={f"{name}.gz": gz_sha256, name: sha256})


@dataclass(frozen=True, kw_only=True, slots=True)
class IdxSource(Source):
    """A data set of grey images and labels in four IDX files.

    Attributes:
        mean: of the pixels of all training images, in [0, 1].
        std: likewise.
        train_images, train_labels, test_images, test_labels: the files.
    """

    mean: float
    std: float
    train_images: PublishedFile
    train_labels: PublishedFile
    test_images: PublishedFile
    test_labels: PublishedFile

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        """All four."""
        return self.train_images, self.train_labels, self.test_images, self.test_labels
