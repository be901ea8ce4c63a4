"""Branches that a network begins with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from esper_lightning.leyline import GrownSeed, InvalidArgument, RunSummary, decode

Fossils = str | Sequence[GrownSeed | Mapping[str, Any]]
"""Branches, or the path of a finished run's ``summary.json``, whose branches they are."""

_ALLOWED = (
    "give a list of branches, each {slot: features.1, blueprint: parallel_conv}, with parameters "
    "if need be, or the path of a run's summary.json"
)


def read_fossils(fossils: Fossils) -> list[GrownSeed]:
    """The branches that ``fossils`` tells of.

    Raises:
        InvalidArgument: there is no such file, or something else than branches.
        DecodeError: the file is no summary.
    """
    if isinstance(fossils, str):
        path = Path(fossils)
        if not path.is_file():
            raise InvalidArgument(f"fossils={fossils!r}: no such file; give a run's summary.json")
        return list(decode(path.read_bytes(), RunSummary, what=fossils).grown)
    if not isinstance(fossils, Sequence):
        raise InvalidArgument(f"fossils={fossils!r}: {_ALLOWED}")
    return [_branch(fossil, f"fossils[{index}]") for index, fossil in enumerate(fossils)]


def _branch(fossil: object, name: str) -> GrownSeed:
    try:
        return msgspec.convert(fossil, GrownSeed, from_attributes=True)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{name} = {fossil!r}: {error}; {_ALLOWED}") from error
