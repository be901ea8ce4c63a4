"""What to plant, where, and how large: the most prior gain for its cost within the budget."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from esper_lightning.karn import Blueprint, Range
from esper_lightning.leyline import Attachment, SeedState, SlotShape, SystemState
from esper_lightning.tamiyo.budget import Price, Room
from esper_lightning.tamiyo.shortlist import Offer, Shortlist, offer

NARROW = 32
"""Features of a slot at which a series branch is expected to gain half of what a parallel one does.
In trials on two narrow hosts it gained 0.3 and 0.6 of that, with twice the parameters."""

LINEAR = frozenset(
    {
        "channel_affine",
        "vector_affine",
        "parallel_pointwise",
        "low_rank",
        "parallel_low_rank",
        "separable_low_rank",
    }
)
"""Blueprints without an activation: their parameters add no new kind of feature."""

LINEAR_WORTH = 0.3
"""What a parameter of a linear blueprint is expected to gain, over one of any other: a guess."""

SIZE_STEP = 0.25
"""Step in which a width that need not be an integer is chosen."""

Trust = Callable[[SeedState, str], float]
"""``trust(slot, blueprint name)``: how it fared in this run, 1 when it was not tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planting:
    """A slot and what to plant there."""

    slot: SeedState
    offer: Offer
    share: Room

    def __str__(self) -> str:
        parameters = ", ".join(f"{key}={value}" for key, value in self.offer.parameters.items())
        return (
            f"{self.offer.blueprint.name}({parameters}) adds {self.offer.price.parameters:,} "
            f"parameters; the slot's share: {self.share}"
        )


def plan(
    slots: Sequence[SeedState],
    room: Room,
    *,
    state: SystemState,
    shortlist: Shortlist,
    trust: Trust,
) -> list[Planting]:
    """One cohort: as many of the first slots as can each get something for their share.

    The shares together never exceed ``room``. A slot whose share admits nothing leaves it to the
    others, however much it is wanted; what a slot does not use of its share is not handed on.

    Args:
        slots: free slots, the most wanted first.
        room: what the cohort may add.
        state: at the boundary.
        shortlist: what may be planted.
        trust: how blueprints fared.

    Returns:
        At most one planting a slot; empty when nothing fits anywhere.
    """
    slots = [slot for slot in slots if sized(slot, room, shortlist)]
    groups = [slots[:num] for num in range(len(slots), 0, -1)]
    groups += [[slot] for slot in slots[1:]]
    for group in groups:
        rooms = shares(group, room)
        offers = {slot.slot: sized(slot, rooms[slot.slot], shortlist) for slot in group}
        suited = [slot for slot in group if offers[slot.slot]]
        if suited and len(suited) < len(group):
            return plan(suited, room, state=state, shortlist=shortlist, trust=trust)
        if suited:
            return [
                Planting(
                    slot=slot,
                    offer=best(
                        offers[slot.slot], slot, share=rooms[slot.slot], state=state, trust=trust
                    ),
                    share=rooms[slot.slot],
                )
                for slot in suited
            ]
    return []


def shares(slots: Sequence[SeedState], room: Room) -> dict[str, Room]:
    """What each of the slots may use of ``room``, so that all grow to about the same multiple.

    In proportion to two dense layers from the slot's input to its output, as wide between as the
    output: as a static network is widened. Equal shares would grow slots with many positions and
    few features most, where a parameter costs the most FLOPs. Only shapes count: where slots wrap
    layers of several kinds (3x3 convolutions beside dense ones), multiples differ.

    Args:
        slots: of known shape.
        room: of all of them.
    """
    weights = {slot.slot: _weights(slot) for slot in slots}
    multiplies = {slot.slot: _weights(slot) * _positions(slot) for slot in slots}
    return {
        slot.slot: room.portion(
            parameters=(weights[slot.slot], sum(weights.values())),
            flops=(multiplies[slot.slot], sum(multiplies.values())),
        )
        for slot in slots
    }


def best(
    offers: Sequence[Offer], slot: SeedState, *, share: Room, state: SystemState, trust: Trust
) -> Offer:
    """The offer with the most expected gain for its cost; the first of equals.

    Cost is 1 for the slot and its trial, whatever is planted, plus the share of parameters and of
    FLOPs that it uses (where they are not limited, relative to the host's).
    """

    def worth(candidate: Offer) -> float:
        gain = prior(candidate.blueprint, candidate.price, slot)
        gain *= trust(slot, candidate.blueprint.name)
        return gain / (1 + _used(candidate.price, share, state))

    return max(offers, key=worth)


def prior(blueprint: Blueprint, price: Price, slot: SeedState) -> float:
    """Expected gain before anything is known of this run; only ratios mean something.

    Each doubling of what is added, measured by the wrapped module, gains about the same; in series
    it is worth less the narrower the slot is, because a series branch cannot get past the host's
    narrow channels; being linear, risk, and a late curriculum stage count against it.
    """
    assert slot.shape is not None  # without a shape there is no offer
    size = math.log2(1 + price.parameters / max(1, slot.base_parameters))
    features = slot.shape.output.features
    parallel = blueprint.attachment is Attachment.PARALLEL
    reach = 1.0 if parallel else features / (features + NARROW)
    worth = LINEAR_WORTH if blueprint.name in LINEAR else 1.0
    return size * reach * worth * (1 - blueprint.risk) / blueprint.curriculum_stage


def sized(slot: SeedState, room: Room, shortlist: Shortlist) -> list[Offer]:
    """Every blueprint of the shortlist that fits in ``room``, as large as ``room`` admits.

    Without any limit a blueprint keeps its default size.
    """
    if slot.shape is None or room.missing or room.parameters < 1:
        return []
    made = [largest(blueprint, slot.shape, room) for blueprint in shortlist.of(slot)]
    return [candidate for candidate in made if candidate is not None]


def largest(blueprint: Blueprint, shape: SlotShape, room: Room) -> Offer | None:
    """The blueprint at the largest size that ``room`` admits; None when the smallest is too large.

    Its size is the first numeric parameter that adds parameters as it rises (``expansion``,
    ``rank``); the others keep their defaults.
    """
    name = _size_parameter(blueprint, shape)
    if name is None or room.is_unlimited:
        default = offer(blueprint, shape)
        return default if room.admits(default.price) else None
    allowed = blueprint.parameters[name]
    assert isinstance(allowed, Range)  # a size parameter is one
    values = _steps(allowed)
    below, above = -1, len(values)  # the first `below + 1` sizes fit, from `above` on none does
    found = None
    while above - below > 1:
        middle = (below + above) // 2
        candidate = offer(blueprint, shape, {name: values[middle]})
        if room.admits(candidate.price):
            below, found = middle, candidate
        else:
            above = middle
    return found


def _size_parameter(blueprint: Blueprint, shape: SlotShape) -> str | None:
    for name, allowed in blueprint.parameters.items():
        if isinstance(allowed, Range):
            small = blueprint.num_parameters(shape, {name: allowed.low})
            if blueprint.num_parameters(shape, {name: allowed.high}) > small:
                return name
    return None


def _steps(allowed: Range) -> list[float]:
    """The sizes to choose from, ascending; both ends are among them."""
    step = 1 if allowed.is_integer else SIZE_STEP
    num = math.floor((allowed.high - allowed.low) / step)
    values = [allowed.low + index * step for index in range(num + 1)]
    return values if values[-1] == allowed.high else [*values, allowed.high]


def _weights(slot: SeedState) -> int:
    """Of two dense layers, as wide between as the output."""
    assert slot.shape is not None  # without a shape it is not free
    c_in, c_out = slot.shape.input.features, slot.shape.output.features
    return (c_in + c_out) * c_out


def _positions(slot: SeedState) -> int:
    assert slot.shape is not None
    return slot.shape.output.num_positions


def _used(price: Price, share: Room, state: SystemState) -> float:
    parameters = share.parameters if math.isfinite(share.parameters) else state.host_parameters
    used = price.parameters / max(1.0, parameters)
    flops = share.flops if math.isfinite(share.flops) else state.host_flops
    if flops is None or not math.isfinite(flops):
        return used
    return used + price.flops / max(1.0, flops)
