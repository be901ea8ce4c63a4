"""The host's dataflow as a small graph, and how its layers stand to each other in it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esper_lightning.leyline import LayerState
from esper_lightning.tamiyo.observation.layers import by_path, nesting

MAX_LAYERS = 64
"""Layers that are seen, slots among them; of a larger host the most deeply nested ones are merged
into what they feed. Attention grows with the square: with 64 and a catalogue of 50 a boundary still
takes a few milliseconds of one core. Slots are never merged."""

HOPS = (1, 2, 4, 8)
"""Upper ends of the buckets in which distances fall, with one more beyond them: doubling, as those
of relative positions in Raffel et al. 2020 (arXiv:1910.10683), section 2.1."""

SAME, APART = 0, 1
"""The relation of a layer to itself, and of two of which neither computes from the other."""

_BUCKETS = len(HOPS) + 1

NUM_RELATIONS = 2 + 2 * _BUCKETS
"""Itself, apart, and the buckets of what feeds a layer and of what it feeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The layers that are seen.

    Attributes:
        places: in ``SystemState.layers`` of those that are no slots, in call order.
        slots: in ``SystemState.layers``, of each slot; None for one that is not among them.
        relations: ``(N, N)`` of these layers and then the slots: how column stands to row.
    """

    places: tuple[int, ...]
    slots: tuple[int | None, ...]
    relations: npt.NDArray[np.int64]


def topology(layers: Sequence[LayerState], slots: Sequence[str]) -> Topology:
    """The graph of a host.

    Args:
        layers: of the host, in call order.
        slots: paths.
    """
    place_of = by_path(layers)
    own = tuple(place_of.get(path) for path in slots)
    taken = {place for place in own if place is not None}
    kept = {*taken, *_others(layers, taken, num=max(0, MAX_LAYERS - len(slots)))}
    others = tuple(place for place in sorted(kept) if place not in own)
    nodes = [*others, *own]
    feeds = _feeds(layers, kept, place_of)
    relations = np.full((len(nodes), len(nodes)), APART, dtype=np.int64)
    columns: dict[int, list[int]] = {}
    for column, place in enumerate(nodes):
        if place is not None:
            columns.setdefault(place, []).append(column)
    for place, found in columns.items():
        for reader, hops in _hops(place, feeds).items():
            bucket = 2 + sum(hops > end for end in HOPS)
            for row in columns[reader]:
                for column in found:
                    relations[row, column] = bucket
                    if relations[column, row] == APART:
                        relations[column, row] = bucket + _BUCKETS
    np.fill_diagonal(relations, SAME)
    return Topology(places=others, slots=own, relations=relations)


def _others(layers: Sequence[LayerState], slots: Collection[int], *, num: int) -> list[int]:
    """Places of up to ``num`` layers that are no slots, the least nested first."""
    others = [place for place in range(len(layers)) if place not in slots]
    others.sort(key=lambda place: (nesting(layers[place]), place))
    return others[:num]


def _feeds(
    layers: Sequence[LayerState], kept: Collection[int], place_of: Mapping[str, int]
) -> dict[int, set[int]]:
    """By place, which kept layers compute from it, directly or through merged ones."""
    sources: dict[int, set[int]] = {}
    feeds: dict[int, set[int]] = {place: set() for place in kept}
    for place, layer in enumerate(layers):
        read = [place_of[path] for path in layer.reads if path in place_of]
        found: set[int] = set()
        for source in read:
            found |= {source} if source in kept else sources.get(source, set())
        sources[place] = found
        if place in kept:
            for source in found - {place}:
                feeds[source].add(place)
    return feeds


def _hops(start: int, feeds: dict[int, set[int]]) -> dict[int, int]:
    """By place, over how many edges it computes from ``start``; breadth first."""
    found: dict[int, int] = {}
    front, hops = {start}, 0
    while front:
        hops += 1
        front = {reader for place in front for reader in feeds[place]} - found.keys() - {start}
        found |= dict.fromkeys(front, hops)
    return found
