"""Compiled code as bytes, and back: what the compiler made, with the libraries that it built.

The bytes hold pickles and machine code. Whoever opens them runs what is in them: only bytes whose
signature was verified are handed to :func:`load`.
"""

import atexit
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import torch

from esper_lightning.leyline import EsperError

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

CODE, LIBRARIES = "code", "libraries"
"""Names of the two parts of a bundle."""

_KEPT = frozenset({".so", ".cpp", ".h", ".py", ".cubin", ".json"})
_MAX_LIBRARIES = 256 * 2**20

_one_at_a_time = Lock()


class BadBundle(EsperError):
    """Bytes that are no bundle, though they were signed as one."""


def is_supported() -> bool:
    """Whether this torch can save compiled code with its backward pass (2.10 and later)."""
    return hasattr(torch.compiler, "load_compiled_function")


def pack_libraries(cache: Path) -> bytes:
    """What the compiler left in its cache folder and a loader needs again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(cache.rglob("*")):
            if path.is_file() and path.suffix in _KEPT:
                # Without times, so that the same files make the same bytes.
                named = zipfile.ZipInfo(str(path.relative_to(cache)))
                archive.writestr(named, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def unpack_libraries(packed: bytes, cache: Path) -> None:
    """Lay :func:`pack_libraries` out again.

    Raises:
        BadBundle: not such an archive, one that leads out of the folder, or one that is too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MAX_LIBRARIES:
                raise BadBundle(f"its libraries have more than {_MAX_LIBRARIES} bytes")
            for item in archive.infolist():
                target = (cache / item.filename).resolve()
                if not target.is_relative_to(cache.resolve()):
                    raise BadBundle(f"{item.filename!r} leads out of the folder")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(item))
                target.chmod(0o700)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError) as error:
        raise BadBundle(f"its libraries cannot be unpacked: {error}") from error


@contextmanager
def cache_folder(folder: Path) -> Iterator[None]:
    """The compiler's cache is ``folder``, within; one thread at a time."""
    with _one_at_a_time:
        before = os.environ.get(CACHE_VARIABLE)
        os.environ[CACHE_VARIABLE] = str(folder)
        try:
            yield
        finally:
            os.environ.pop(CACHE_VARIABLE, None)
            if before is not None:
                os.environ[CACHE_VARIABLE] = before


def load(code: bytes, libraries: bytes) -> Callable[..., Any]:
    """The compiled function ``fn(branch, x)`` of a bundle that was verified.

    Its libraries are unpacked to a folder that only this user can read, and stay until the process
    ends.

    Raises:
        BadBundle: it is no bundle, or not one for this torch.
    """
    folder: TemporaryDirectory[str] = TemporaryDirectory(
        prefix="tezzeret-", ignore_cleanup_errors=True
    )
    try:
        unpack_libraries(libraries, Path(folder.name))
        with cache_folder(Path(folder.name)):
            made: Callable[..., Any] = torch.compiler.load_compiled_function(io.BytesIO(code))
    except BadBundle:
        folder.cleanup()
        raise
    except Exception as error:  # pylint: disable=broad-exception-caught
        # The loader of torch raises whatever the parts of the compiler raise.
        folder.cleanup()
        raise BadBundle(f"torch cannot load it: {type(error).__name__}: {error}") from error
    atexit.register(folder.cleanup)
    return made
