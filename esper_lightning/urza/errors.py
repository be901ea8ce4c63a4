"""What can go wrong with a library."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esper_lightning.leyline import EsperError


class LibraryError(EsperError):
    """Base of the errors of a library; what was stored before is as it was."""


class LibraryUnusable(LibraryError):
    """There is no library here that can be opened: a file, another database, a later release's."""


class LibraryFull(LibraryError):
    """No space is left, or a quota or a limit of file sizes is reached; nothing was stored."""


class LibraryReadOnly(LibraryError):
    """The library may be read here and not written."""


class LibraryBusy(LibraryError):
    """Another process kept the library locked for longer than was waited."""


class Damaged(LibraryError):
    """Bytes that are missing, or are not those that were stored; nothing of them was used."""


class BadSignature(LibraryError):
    """A manifest that was not signed with this installation's key; nothing of it was used."""


class Removed(LibraryError):
    """A version that was there, and that garbage collection has removed since."""


@contextmanager
def storage_errors(root: Path) -> Iterator[None]:
    """Give what the operating system says about the files of a library its name.

    Raises:
        LibraryFull, LibraryReadOnly, LibraryUnusable: instead of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise _meaning(error, root) from error


def _meaning(error: OSError, root: Path) -> LibraryError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return LibraryFull(
            f"no space is left in {root} ({error.strerror}); nothing was stored. Free some: "
            f"`python -m esper_lightning.urza gc --root {root}` removes what nothing refers to"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LibraryReadOnly(
            f"{error.filename or root} cannot be used by this user ({error.strerror}); name "
            "another folder (ESPER_URZA_ROOT), or change its permissions"
        )
    return LibraryUnusable(
        f"{error.filename or root} cannot be used as part of a library ({error.strerror}); name "
        "another folder (ESPER_URZA_ROOT)"
    )
