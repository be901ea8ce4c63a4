"""What is observed of a blueprint in a slot: size, cost and trust."""

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from esper_lightning.leyline import SeedState, SystemState
from esper_lightning.tamiyo.budget import Room
from esper_lightning.tamiyo.observation.prices import SIZES, Array, Prices
from esper_lightning.tamiyo.record import Record

SHARES = (1.0, 1 / 2, 1 / 3, 1 / 4)
"""Shares of the room that is left, of which a planting is given one. A cohort of up to four seeds
in equal parts is the last of them, the one before it, and so on."""

_PARTS = tuple(f"1_{round(1 / share)}" for share in SHARES)

NAMES = (
    "smallest",
    "default",
    "worth",
    "trust",
    *(f"size_{part}" for part in _PARTS),
    *(f"used_{part}" for part in _PARTS),
)
"""Of the features, in their order.

``smallest`` is the log of the room over the smallest size, ``default`` that of the default size
over the wrapped module; ``worth`` the log of the expected gain of one doubling of the module
(prior); ``trust`` the log of how the blueprint fared there; ``size_...`` the log of how many
doublings a share of the room buys, and ``used_...`` that of one more than the shares of the limits
it then uses. The log of what the heuristic maximises is ``worth + size + trust - used``.
"""

_SMALLEST, _DEFAULT, _LARGEST = range(len(SIZES))

_MOST = sys.float_info.max


def limits(room: Room) -> Array:
    """``(2,)``: parameters and FLOPs of a room; infinite without a limit, -1 if not known."""
    return np.array([-1.0, -1.0] if room.missing else [room.parameters, room.flops])


class Pairs:
    """The features of every pair; all but trust stay until what they are made from changes."""

    def __init__(self) -> None:
        self._prices: Prices | None = None
        self._key: tuple[object, ...] = ()
        self._last = np.zeros((0, 0, 2 * len(NAMES)), dtype=np.float32)

    def of(
        self,
        slots: Sequence[SeedState],
        state: SystemState,
        prices: Prices,
        *,
        room: Room,
        record: Record,
    ) -> npt.NDArray[np.float32]:
        """``(S, B, 2 F)``: values, 0 for what is missing, and whether each is there."""
        base = tuple(max(1.0, float(slot.base_parameters)) for slot in slots)
        key = (base, room, state.host_parameters, state.host_flops)
        if self._prices is not prices or self._key != key:
            self._prices, self._key = prices, key
            self._last = _untried(np.array(base), state, prices, room=room)
        return _trusted(self._last.copy(), slots, prices, record)


def _untried(
    base: Array, state: SystemState, prices: Prices, *, room: Room
) -> npt.NDArray[np.float32]:
    """The features where nothing was tried: trust is 1."""
    rows, columns = prices.fits.nonzero()
    found, modules = prices.prices[rows, columns], base[rows]
    limit = limits(room)
    parts = np.where(np.isinf(limit), np.inf, np.floor(np.outer(SHARES, np.minimum(limit, _MOST))))
    with np.errstate(all="ignore"):
        bought = _bought(found, parts, room)
        scale = np.maximum(1.0, np.where(np.isinf(limit), _whole(state), parts))
        values = np.column_stack(
            [
                np.log(limit[0] / found[:, _SMALLEST, 0]),
                np.log(found[:, _DEFAULT, 0] / modules),
                np.log(prices.worth[rows, columns]),
                np.zeros(len(rows)),
                np.log(np.log2(1 + bought[..., 0] / modules[:, None])),
                np.log1p((bought / scale).sum(axis=-1)),
            ]
        )
    there = np.isfinite(values)
    out = np.zeros((*prices.fits.shape, 2 * len(NAMES)), dtype=np.float32)
    out[rows, columns] = np.concatenate([np.where(there, values, 0.0), there], axis=1)
    return out


def quarantine(slots: Sequence[SeedState], prices: Prices) -> npt.NDArray[np.bool_]:
    """``(S, B)``: what fits and has done no harm there."""
    fits = prices.fits.copy()
    for number, slot in enumerate(slots):
        if slot.quarantined:
            fits[number, [each.name in slot.quarantined for each in prices.blueprints]] = False
    return fits


def _bought(prices: Array, parts: Array, room: Room) -> Array:
    """``(P, 4, 2)``: the largest price within each part, on the line from smallest to largest.

    Args:
        prices: ``(P, 3, 2)``.
        parts: ``(4, 2)``, limits.
        room: of which they are parts.
    """
    low, high = prices[:, None, _SMALLEST], prices[:, None, _LARGEST]
    if room.is_unlimited:
        return np.broadcast_to(prices[:, None, _DEFAULT], (len(prices), len(SHARES), 2))
    reach = (parts - low) / (high - low)
    # Where size does not change a price it is no limit, but for one that does not fit at all.
    reach = np.where(high > low, reach, np.where(low <= parts, np.inf, -np.inf)).min(axis=-1)
    price = low + np.clip(reach, 0.0, 1.0)[..., None] * (high - low)
    return np.where(reach[..., None] >= 0, price, np.nan)


def _whole(state: SystemState) -> Array:
    """What costs are told against where there is no limit: the host's own. FLOPs may be missing."""
    flops = state.host_flops
    known = flops is not None and np.isfinite(flops)
    return np.array([float(state.host_parameters), flops if known else np.inf])


def _trusted(
    out: npt.NDArray[np.float32], slots: Sequence[SeedState], prices: Prices, record: Record
) -> npt.NDArray[np.float32]:
    """With the log of what the record says of what was tried, in place."""
    place = NAMES.index("trust")
    column = {each.name: number for number, each in enumerate(prices.blueprints)}
    at: list[tuple[int, int]] = []
    trusts: list[float] = []
    for number, slot in enumerate(slots):
        culled = record.culls.get(slot.slot, {}).keys()
        tried = {fossil.blueprint for fossil in slot.fossils} | culled
        for name in tried & column.keys():
            at.append((number, column[name]))
            trusts.append(record.trust(slot, name))
    if not at:
        return out
    rows, columns = np.array(at).T
    known = np.array(trusts)
    fits = prices.fits[rows, columns]
    rows, columns, known = rows[fits], columns[fits], known[fits]
    there = known > 0
    out[rows, columns, place] = np.log(np.where(there, known, 1.0))
    out[rows, columns, len(NAMES) + place] = there
    return out
