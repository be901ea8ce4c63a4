"""The catalogue: every blueprint by its name, in the order of their ids.

To add one to this package, write its class in the file of its family, and its row in
``BLUEPRINTS`` at that file's end. To add one of your own, hand it to :func:`register`, or name it
as an entry point of the group :data:`ENTRY_POINTS`.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from esper_lightning.karn import (
    affine,
    attention,
    causal,
    convolution,
    low_rank,
    mlp,
    parallel_convolution,
    squeeze_excite,
)
from esper_lightning.karn.blueprint import Blueprint
from esper_lightning.kasmina.branch import Branch
from esper_lightning.leyline import ParameterValue, SlotShape, UnknownBlueprint

_FAMILIES = (
    affine,
    squeeze_excite,
    convolution,
    parallel_convolution,
    causal,
    attention,
    mlp,
    low_rank,
)

_ROWS = sorted((row for family in _FAMILIES for row in family.BLUEPRINTS), key=lambda row: row.id)

CATALOGUE: Mapping[str, Blueprint] = MappingProxyType({row.name: row for row in _ROWS})
"""Every blueprint by its name, in the order of their ids."""


def get(name: str) -> Blueprint:
    """The blueprint called ``name``.

    Raises:
        UnknownBlueprint: there is none.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    close = get_close_matches(name, CATALOGUE)
    hint = f"did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    raise UnknownBlueprint(f"no blueprint {name!r}; {hint}the catalogue has {', '.join(CATALOGUE)}")


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    """Build a blueprint for a slot: the ``BuildBranch`` that slots are handed.

    Raises:
        UnknownBlueprint: there is no blueprint ``name``.
        InvalidArgument: it does not fit ``shape``, or does not take ``parameters``.
    """
    return get(name).build(shape, parameters)
