"""Actions: what is chosen, as indices into an observation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from esper_lightning.karn import Blueprint
from esper_lightning.leyline import CommandKind, SystemState
from esper_lightning.tamiyo.budget import Room
from esper_lightning.tamiyo.observation import KINDS, SHARES, Observation
from esper_lightning.tamiyo.planting import largest
from esper_lightning.tamiyo.policy import Choice
from esper_lightning.tamiyo.shortlist import Offer, offer

STOP, GERMINATE = KINDS.index(CommandKind.NOOP), KINDS.index(CommandKind.GERMINATE)
"""In :data:`KINDS`. To wait and to have done enough are the same choice."""


@dataclass(frozen=True, slots=True)
class Action:
    """One elementary choice. An index that its kind does not need is 0.

    Attributes:
        kind: in :data:`KINDS`; 0 ends the boundary.
        slot: in the observation's slots, of any kind but NOOP.
        blueprint: in the observation's blueprints, of GERMINATE.
        share: in :data:`SHARES`, of GERMINATE.
    """

    kind: int
    slot: int = 0
    blueprint: int = 0
    share: int = 0


def left_after(left: float, share: float, *, unlimited: bool) -> float:
    """The part of a boundary's room that is left when a share of ``left`` has been granted.

    What a planting was granted is gone for this boundary, whether it takes all of it or not.
    """
    return left if unlimited else left * (1 - share)


def room_of(observation: Observation) -> Room:
    """The room that was observed; none where it is not known."""
    parameters, flops = observation.room.tolist()
    return Room(parameters=max(0.0, parameters), flops=max(0.0, flops))


def part_of(room: Room, part: float) -> Room:
    """A part of it, rounded down; a limit that is infinite has no parts."""
    return Room(parameters=_part(room.parameters, part), flops=_part(room.flops, part))


def actions_of(
    observation: Observation,
    choices: Sequence[Choice],
    *,
    state: SystemState,
    catalogue: Mapping[str, Blueprint],
) -> list[Action]:
    """The actions by which a learned policy makes ``choices``, those of any policy.

    A planting's share is that on the choice; where it has none, the share at which the blueprint
    comes out nearest in size, and among equals the one nearest to an equal part for each planting
    that is still to come. Left out is what a learned policy could not have chosen: what was
    refused, a blueprint that it is not offered, a kind that it may not use, what does not fit in
    any share, and all that comes after a slot's first choice. The last action is always NOOP.

    Args:
        observation: of ``state``.
        choices: made there.
        state: at the boundary.
        catalogue: of the blueprints that were chosen.
    """
    slots = {name: number for number, name in enumerate(observation.slot_names)}
    found: list[Action] = []
    taken: set[int] = set()
    left, unlimited = 1.0, room_of(observation).is_unlimited
    wanted = [each for each in choices if each.slot in slots and not each.refused]
    for place, choice in enumerate(wanted):
        slot = slots[choice.slot]
        kind = KINDS.index(choice.kind) if choice.kind in KINDS else STOP
        if slot in taken or not observation.legal[slot, kind]:
            continue
        if kind != GERMINATE:
            found.append(Action(kind, slot))
            taken.add(slot)
            continue
        rest = sum(each.kind is CommandKind.GERMINATE for each in wanted[place:])
        action = _planting(observation, choice, state=state, left=left, rest=rest, of=catalogue)
        if action is not None:
            found.append(action)
            taken.add(slot)
            left = left_after(left, SHARES[action.share], unlimited=unlimited)
    return [*found, Action(STOP)]


def _planting(
    observation: Observation,
    choice: Choice,
    *,
    state: SystemState,
    left: float,
    rest: int,
    of: Mapping[str, Blueprint],
) -> Action | None:
    """The planting as an action; None where it is none that could have been chosen."""
    slot = observation.slot_names.index(choice.slot)
    shape = state.slots[slot].shape
    if choice.blueprint not in observation.blueprint_names or choice.blueprint not in of:
        return None
    blueprint = observation.blueprint_names.index(choice.blueprint)
    if shape is None or not observation.fits[slot, blueprint]:
        return None
    chosen = offer(of[choice.blueprint], shape, choice.parameters)
    room = room_of(observation)
    found: list[tuple[float, float, int]] = []
    for number, share in enumerate(SHARES):
        made = largest(of[choice.blueprint], shape, part_of(room, left * share))
        if made is None or (room.is_unlimited and number):
            continue
        if choice.share is not None:
            distance = abs(math.log(share / choice.share))
        else:
            distance = _distance(made, chosen)
        found.append((distance, abs(math.log(share * rest)), number))
    return Action(GERMINATE, slot, blueprint, min(found)[-1]) if found else None


def _distance(one: Offer, other: Offer) -> float:
    sizes = [max(1, each.price.parameters) for each in (one, other)]
    return abs(math.log(sizes[0] / sizes[1]))


def _part(limit: float, part: float) -> float:
    return limit if math.isinf(limit) else float(math.floor(limit * part))
