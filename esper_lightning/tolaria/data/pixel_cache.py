"""Decoded images kept in a file, so that they are decoded once."""

import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper_lightning.tolaria.data.whole_file import whole_file

log = logging.getLogger(__name__)

USER_CACHE = Path("~/.cache/esper_lightning")
"""Where the decoded images go if the data folder cannot be written to."""

Pixels = dict[str, NDArray[np.uint8]]


def cached_pixels(
    name: str,
    *,
    folders: Sequence[Path],
    shapes: Mapping[str, tuple[int, ...]],
    make: Callable[[], Pixels],
) -> Pixels:
    """Arrays from the first folder that has them; else made, and left in the first that takes them.

    The file is an ``.npz`` without compression, which holds a checksum of each array. Several
    processes may ask at once: each finds a whole file, or makes the arrays itself.

    Args:
        name: of the file, which must tell what it is made of.
        folders: looked in, and written to, in this order.
        shapes: that the arrays must have, by their names.
        make: makes them.

    Returns:
        The arrays by name.
    """
    for folder in folders:
        path = folder / name
        if path.is_file() and (found := _read(path, shapes)) is not None:
            return found
    pixels = make()
    for folder in folders:
        try:
            with whole_file(folder / name) as file:
                np.savez(file, **pixels)  # type: ignore[arg-type]
        except OSError as error:
            log.info("decoded images cannot be kept in %s: %s", folder, error)
            continue
        log.info("decoded images are kept in %s", folder / name)
        return pixels
    log.warning(
        "decoded images are not kept, and decoded again next time: none of %s can be written to",
        ", ".join(map(str, folders)),
    )
    return pixels


def _read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Pixels | None:
    """The arrays if they are what they should be."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found: dict[str, NDArray[Any]] = {name: file[name] for name in shapes}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s), its images are decoded again", path, error)
        return None
    if any(found[name].dtype != np.uint8 or found[name].shape != shapes[name] for name in shapes):
        log.warning("%s holds other images, they are decoded again", path)
        return None
    return found
