"""The catalogue: every blueprint by its name, in the order of their ids.

To add one to this package, write its class in the file of its family, and its row in
``BLUEPRINTS`` at that file's end. One of your own is handed to :func:`register`, or named as an
entry point of the group ``esper_lightning.blueprints``.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points

from esper_lightning.karn import (
    adversarial,
    affine,
    attention,
    causal,
    causal_mixing,
    convolution,
    dynamic_kernels,
    expansions,
    fourier,
    low_rank,
    memory_layer,
    mixer,
    mixture,
    mlp,
    normalisation,
    parallel_convolution,
    spectral,
    squeeze_excite,
    state_space,
    windowed_attention,
)
from esper_lightning.karn.blueprint import Blueprint
from esper_lightning.kasmina.branch import Branch
from esper_lightning.leyline import InvalidArgument, ParameterValue, SlotShape, UnknownBlueprint

_FAMILIES = (
    affine,
    normalisation,
    squeeze_excite,
    convolution,
    parallel_convolution,
    causal,
    attention,
    windowed_attention,
    mlp,
    low_rank,
    spectral,
    causal_mixing,
    mixer,
    fourier,
    state_space,
    mixture,
    dynamic_kernels,
    expansions,
    memory_layer,
    adversarial,
)

ENTRY_POINTS = "esper_lightning.blueprints"
"""Group of entry points, each of which is a :class:`Blueprint`, that join the catalogue."""

OWN_PREFIX = "BP"
"""Ids that begin with it are this package's."""


class Catalogue(Mapping[str, Blueprint]):
    """Blueprints by their names, in the order of their ids, this package's first.

    Args:
        rows: to begin with.
        group: of entry points, which are loaded when the catalogue is first looked at.
    """

    def __init__(self, rows: Iterable[Blueprint], *, group: str = "") -> None:
        self._rows = _by_id(rows)
        self._group = group

    def __getitem__(self, name: str) -> Blueprint:
        return self._loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def add(self, blueprint: Blueprint) -> None:
        """Take a blueprint in; one that is there already changes nothing.

        Raises:
            InvalidArgument: its name or id is another's, or its id is one of this package's.
        """
        known = self._loaded()
        if known.get(blueprint.name) == blueprint:
            return
        if blueprint.id.startswith(OWN_PREFIX):
            raise InvalidArgument(
                f"blueprint {blueprint.name!r} has the id {blueprint.id}; those with {OWN_PREFIX} "
                f"are this package's, take other capitals, for example MY{blueprint.id[2:]}"
            )
        for other in known.values():
            if blueprint.name == other.name or blueprint.id == other.id:
                raise InvalidArgument(
                    f"blueprint {blueprint.id} {blueprint.name!r} cannot be added: the catalogue "
                    f"has {other.id} {other.name!r}; take a name and an id of its own"
                )
        self._rows = _by_id([*known.values(), blueprint])

    def _loaded(self) -> dict[str, Blueprint]:
        group, self._group = self._group, ""
        for point in entry_points(group=group) if group else ():
            blueprint = point.load()
            if not isinstance(blueprint, Blueprint):
                raise InvalidArgument(
                    f"the entry point {point.name!r} of {group!r} must be a Blueprint, "
                    f"{point.value} is {blueprint!r}"
                )
            self.add(blueprint)
        return self._rows


def _by_id(rows: Iterable[Blueprint]) -> dict[str, Blueprint]:
    ordered = sorted(rows, key=lambda row: (not row.id.startswith(OWN_PREFIX), row.id))
    return {row.name: row for row in ordered}


CATALOGUE = Catalogue(
    (row for family in _FAMILIES for row in family.BLUEPRINTS), group=ENTRY_POINTS
)
"""Every blueprint by its name, in the order of their ids."""


def register(*blueprints: Blueprint) -> None:
    """Add blueprints of your own to :data:`CATALOGUE`, for this process.

    A run that resumes from a checkpoint in which one has grown must add it again; with
    ``blueprints=[...]`` in the configuration, or as an entry point, it does.

    Raises:
        InvalidArgument: a name or an id is another's, or an id is one of this package's.
    """
    for blueprint in blueprints:
        CATALOGUE.add(blueprint)


def get(name: str) -> Blueprint:
    """The blueprint called ``name``.

    Raises:
        UnknownBlueprint: there is none.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    close = get_close_matches(name, CATALOGUE)
    hint = f"did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
    raise UnknownBlueprint(
        f"no blueprint {name!r}; {hint}the catalogue has {', '.join(CATALOGUE)}; one of your own "
        f"is added with karn.register or blueprints=[my_project.MINE]"
    )


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    """Build a blueprint for a slot: the ``BuildBranch`` that slots are handed.

    Raises:
        UnknownBlueprint: there is no blueprint ``name``.
        InvalidArgument: it does not fit ``shape``, or does not take ``parameters``.
    """
    return get(name).build(shape, parameters)
