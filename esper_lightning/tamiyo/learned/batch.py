"""Observations side by side, padded to the largest of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.tamiyo.observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """N observations; shapes as in :class:`Observation`, with N in front.

    Attributes:
        run: ``(N, F)``.
        layers: ``(N, L, F)``.
        slots: ``(N, S, F)``, S at least 1.
        blueprints: ``(N, B, F)``, B at least 1.
        pairs: ``(N, S, B, F)``.
        relations: ``(N, L + S, L + S)``; -1 where either is padding.
        legal: ``(N, S, K)``, False for padding.
        fits: ``(N, S, B)``, False for padding.
        prices: ``(N, S, B, 2)``.
        room: ``(N, 2)``.
        layers_there: ``(N, L)``: what is no padding; likewise the next two.
        slots_there: ``(N, S)``.
        blueprints_there: ``(N, B)``.
    """

    run: Tensor
    layers: Tensor
    slots: Tensor
    blueprints: Tensor
    pairs: Tensor
    relations: Tensor
    legal: Tensor
    fits: Tensor
    prices: Tensor
    room: Tensor
    layers_there: Tensor
    slots_there: Tensor
    blueprints_there: Tensor


def batch(observations: Sequence[Observation]) -> Batch:
    """Put observations side by side.

    Raises:
        InvalidArgument: there is none.
    """
    if not observations:
        raise InvalidArgument("a batch needs at least one observation, got none")
    num_layers = max(len(each.layers) for each in observations)
    num_slots = max(1, *(len(each.slots) for each in observations), 1)
    num_blueprints = max(1, *(len(each.blueprints) for each in observations), 1)

    def put(of: Callable[[Observation], Tensor], *sizes: int, fill: float = 0) -> Tensor:
        return _padded([of(each) for each in observations], sizes, fill)

    slots, blueprints = (num_slots,), (num_blueprints,)
    return Batch(
        run=put(lambda each: each.run),
        layers=put(lambda each: each.layers, num_layers),
        slots=put(lambda each: each.slots, num_slots),
        blueprints=put(lambda each: each.blueprints, num_blueprints),
        pairs=put(lambda each: each.pairs, *slots, *blueprints),
        relations=_relations(observations, num_layers, num_slots),
        legal=put(lambda each: each.legal, num_slots),
        fits=put(lambda each: each.fits, *slots, *blueprints),
        prices=put(lambda each: each.prices, *slots, *blueprints),
        room=put(lambda each: each.room),
        layers_there=_there([len(each.layers) for each in observations], num_layers),
        slots_there=_there([len(each.slots) for each in observations], num_slots),
        blueprints_there=_there([len(each.blueprints) for each in observations], num_blueprints),
    )


def _padded(tensors: Sequence[Tensor], sizes: Sequence[int], fill: float) -> Tensor:
    """Stacked, the first dimensions filled up to ``sizes``."""
    first = tensors[0]
    whole = (*sizes, *first.shape[len(sizes) :])
    if len(tensors) == 1 and first.shape == whole:
        return first[None]
    out = first.new_full((len(tensors), *whole), fill)
    for number, tensor in enumerate(tensors):
        place = out[number]
        for dimension, size in enumerate(tensor.shape):
            place = place.narrow(dimension, 0, size)
        place.copy_(tensor)
    return out


def _relations(observations: Sequence[Observation], num_layers: int, num_slots: int) -> Tensor:
    """Padding goes between layers and slots, and behind the slots."""
    size = num_layers + num_slots
    out = torch.full((len(observations), size, size), -1, dtype=torch.int64)
    for number, each in enumerate(observations):
        own = len(each.layers)
        places = torch.cat(
            [torch.arange(own), torch.arange(num_layers, num_layers + len(each.slots))]
        )
        out[number, places[:, None], places] = each.relations
    return out


def _there(counts: Sequence[int], size: int) -> Tensor:
    return torch.arange(size) < torch.tensor(counts)[:, None]
