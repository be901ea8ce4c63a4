"""Branches that a network begins with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from esper_lightning.leyline import GrownSeed, InvalidArgument, RunSummary, decode

Fossils = str | Sequence[GrownSeed | Mapping[str, Any]]
"""Branches, or the path of a finished run's ``summary.json``, whose branches they are."""


def read_fossils(fossils: Fossils) -> list[GrownSeed]:
    """The branches that ``fossils`` tells of.

    Raises:
        InvalidArgument: there is no such file.
        DecodeError: the file is no summary.
    """
    if isinstance(fossils, str):
        path = Path(fossils)
        if not path.is_file():
            raise InvalidArgument(f"fossils={fossils!r}: no such file; give a run's summary.json")
        return list(decode(path.read_bytes(), RunSummary, what=fossils).grown)
    return [msgspec.convert(fossil, GrownSeed, from_attributes=True) for fossil in fossils]
