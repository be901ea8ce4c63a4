"""What can be wrong with the files of a data set."""

from esper_lightning.leyline import EsperError


class DataMissing(EsperError, FileNotFoundError):
    """Files of a data set are not where they are looked for."""


class DataDamaged(EsperError, ValueError):
    """A file of a data set does not hold what it should."""


class DownloadFailed(EsperError, OSError):
    """No mirror gave the file that was asked for."""
