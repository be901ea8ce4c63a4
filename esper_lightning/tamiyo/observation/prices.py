"""What each blueprint would add in each slot: its smallest, default and largest size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esper_lightning.karn import Blueprint, Cost, Range
from esper_lightning.leyline import SeedStage, SeedState, SlotShape
from esper_lightning.tamiyo.budget import BACKWARD_FACTOR, Price
from esper_lightning.tamiyo.planting import prior
from esper_lightning.tamiyo.shortlist import Shortlist

Array = npt.NDArray[np.float64]

SIZES = ("smallest", "default", "largest")
"""The sizes that are priced."""

MAX_SHAPES = 1024
"""Shapes whose prices are kept. A host has at most as many as it has slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What fits one shape.

    Attributes:
        blueprints: that fit, in the order of the shortlist.
        prices: ``(B, 3, 2)``: of each of :data:`SIZES`, parameters and training FLOPs a sample.
        worth: ``(B,)``: what a blueprint that doubles its module is expected to gain.
    """

    blueprints: tuple[Blueprint, ...]
    prices: Array
    worth: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What fits several slots.

    Attributes:
        blueprints: that fit any of them.
        fits: ``(S, B)``, without a look at quarantine.
        prices: ``(S, B, 3, 2)``, infinite where it does not fit.
        worth: ``(S, B)``, 0 there.
    """

    blueprints: tuple[Blueprint, ...]
    fits: npt.NDArray[np.bool_]
    prices: Array
    worth: Array


class PriceList:
    """Prices by shape; each is worked out once.

    Args:
        shortlist: of what may be planted.
    """

    def __init__(self, shortlist: Shortlist) -> None:
        self._shortlist = shortlist
        self._rows: dict[SlotShape, Row] = {}
        self._last: tuple[tuple[SlotShape | None, ...], Prices] | None = None

    def of(self, slots: Sequence[SeedState]) -> Prices:
        """Of every blueprint that fits any of ``slots``."""
        shapes = tuple(slot.shape for slot in slots)
        if self._last is None or self._last[0] != shapes:
            self._last = shapes, self._gathered(shapes)
        return self._last[1]

    def _gathered(self, shapes: Sequence[SlotShape | None]) -> Prices:
        rows = [None if shape is None else self._row(shape) for shape in shapes]
        names: dict[str, Blueprint] = {}
        for row in rows:
            names |= {each.name: each for each in row.blueprints} if row else {}
        column = {name: number for number, name in enumerate(names)}
        size = (len(rows), len(names))
        fits = np.zeros(size, dtype=np.bool_)
        prices = np.full((*size, len(SIZES), 2), np.inf)
        worth = np.zeros(size)
        for number, row in enumerate(rows):
            if row is not None and row.blueprints:
                columns = [column[each.name] for each in row.blueprints]
                fits[number, columns] = True
                prices[number, columns] = row.prices
                worth[number, columns] = row.worth
        return Prices(blueprints=tuple(names.values()), fits=fits, prices=prices, worth=worth)

    def _row(self, shape: SlotShape) -> Row:
        if shape not in self._rows:
            if len(self._rows) >= MAX_SHAPES:
                self._rows.clear()
            self._rows[shape] = _row(shape, self._shortlist)
        return self._rows[shape]


def _row(shape: SlotShape, shortlist: Shortlist) -> Row:
    slot = SeedState(slot="", stage=SeedStage.DORMANT, shape=shape)
    fitting = shortlist.of(slot)
    priced = [_sizes(blueprint, shape) for blueprint in fitting]
    prices = np.reshape(np.array(priced, dtype=np.float64), (-1, len(SIZES), 2))
    prices[..., 1] *= BACKWARD_FACTOR
    doubling = Price(parameters=1, flops=0.0)  # of a slot whose module has no parameters
    return Row(
        blueprints=tuple(fitting),
        prices=prices,
        worth=np.array([prior(blueprint, doubling, slot) for blueprint in fitting]),
    )


def _sizes(blueprint: Blueprint, shape: SlotShape) -> tuple[Cost, Cost, Cost]:
    """Its cost at each of :data:`SIZES`, three times the same where it has one size.

    Its size is what :func:`~esper_lightning.tamiyo.planting.largest` takes for it. It fits, and its
    own limits are allowed, so that nothing is checked again: a host has hundreds of pairs.
    """
    defaults = {name: allowed.default for name, allowed in blueprint.parameters.items()}
    default = blueprint.branch.cost(shape, **defaults)
    for name, allowed in blueprint.parameters.items():
        if isinstance(allowed, Range):
            low, high = (
                blueprint.branch.cost(shape, **(defaults | {name: end}))
                for end in (allowed.low, allowed.high)
            )
            if high.parameters > low.parameters:
                return low, default, high
    return default, default, default
