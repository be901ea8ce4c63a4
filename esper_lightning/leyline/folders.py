"""Where a user's files belong (XDG Base Directory Specification); how a rename is made to last."""

import os
from pathlib import Path

from esper_lightning.leyline.errors import EsperError

NAME = "esper_lightning"


def config_home() -> Path:
    """The user's configuration of this package: under ``XDG_CONFIG_HOME``, or ``~/.config``."""
    return _home("XDG_CONFIG_HOME", ".config")


def cache_home() -> Path:
    """What this package can make again: under ``XDG_CACHE_HOME``, or ``~/.cache``."""
    return _home("XDG_CACHE_HOME", ".cache")


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _home(variable: str, otherwise: str) -> Path:
    told = Path(os.environ.get(variable, ""))
    if told.is_absolute():  # the specification has relative ones ignored
        return told / NAME
    try:
        return Path.home() / otherwise / NAME
    except RuntimeError as error:
        raise EsperError(
            f"this user has no home folder; set {variable} to an absolute path"
        ) from error
