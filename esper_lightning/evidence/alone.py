"""One process at a time has runs carried out in a folder: two would write over each other."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esper_lightning.leyline import EsperError

log = logging.getLogger(__name__)

LOCK_NAME = ".lock"


class FolderInUse(EsperError):
    """Another process has runs carried out in this folder."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Have a folder for oneself; it is made if it is not there.

    The lock ends with its process, however that ends. A file system without locks is used without.

    Args:
        folder: in which runs have theirs.

    Raises:
        FolderInUse: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"another process has runs carried out in {folder}; wait until it has ended, or "
                "name another folder"
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): see that nothing else runs there", folder, error)
        yield
    finally:
        os.close(descriptor)
