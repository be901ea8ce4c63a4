"""What is observed of the run as a whole."""

import math

from esper_lightning.leyline import LIVE_STAGES, CommandKind, Objective, SystemState
from esper_lightning.tamiyo.budget import Room
from esper_lightning.tamiyo.observation.history import History
from esper_lightning.tamiyo.observation.scales import (
    Features,
    amount,
    compressed,
    count,
    finite,
    flag,
    log_ratio,
    ratio,
    signed,
)
from esper_lightning.tamiyo.plateau import improvement


def features(state: SystemState, history: History, room: Room, *, window: int) -> Features:
    """Of one boundary.

    Args:
        state: at the boundary.
        history: that has observed it.
        room: what is left of the budget.
        window: points of the curve that its slope is told from, and twice as many.
    """
    slots = state.slots
    num_slots = len(slots)
    left = None if state.max_epochs is None else state.max_epochs - 1 - state.epoch
    changed = history.record.changed(state)
    since = None if changed is None else state.epoch - changed
    value = state.objective.value
    curve, mode = history.record.curve, state.objective.mode
    free = sum(CommandKind.GERMINATE in slot.legal for slot in slots)
    live = sum(slot.stage in LIVE_STAGES for slot in slots)
    fossils = sum(len(slot.fossils) for slot in slots)
    belief = history.record.belief()
    return {
        "progress": ratio(state.epoch + 1, state.max_epochs),
        "epochs_done": count(state.epoch + 1),
        "epochs_left": count(left),
        "since_change": count(since),
        "since_change_share": ratio(since, state.max_epochs),
        **signed("slope", improvement(curve, mode=mode, window=window)),
        **signed("long_slope", improvement(curve, mode=mode, window=2 * window)),
        "num_points": count(len(curve)),
        "objective_there": flag(value is not None),
        "objective_finite": flag(None if value is None else math.isfinite(value)),
        **amount("learning_rate", state.learning_rate, history.peak_rate),
        "rollbacks": count(state.rollbacks),
        "num_slots": count(num_slots),
        "num_layers": count(len(state.layers)),
        "free": count(free),
        "free_share": ratio(free, num_slots),
        "live": count(live),
        "live_share": ratio(live, num_slots),
        "fossils": count(fossils),
        "has_fossils": flag(fossils > 0),
        "tried": count(len(history.record.tried)),
        **signed("belief", belief.mean),
        "doubt": log_ratio(math.sqrt(belief.variance), 1.0),
        "culls": count(sum(slot.num_culls for slot in slots)),
        "growth": log_ratio(state.num_parameters, state.host_parameters),
        "flops_growth": log_ratio(state.flops, state.host_flops),
        "room": compressed(_share(room, room.parameters, state.num_parameters)),
        "room_size": log_ratio(_known(room, room.parameters), state.num_parameters),
        "flops_room": compressed(_share(room, room.flops, state.host_flops)),
        "unlimited": flag(room.is_unlimited),
        "room_known": flag(not room.missing),
    }


def _known(room: Room, amount: float) -> float | None:
    return None if room.missing else finite(amount)


def _share(room: Room, amount: float, whole: float | None) -> float | None:
    part, scale = _known(room, amount), finite(whole)
    return part / scale if part is not None and scale else None


BLANK = SystemState(
    run_id="",
    epoch=0,
    max_epochs=None,
    global_step=0,
    steps_per_epoch=0,
    objective=Objective(name=""),
    metrics={},
    slots=(),
    host_parameters=0,
    num_parameters=0,
)
"""A state of which nothing is known."""

NAMES = tuple(features(BLANK, History.empty(), Room(parameters=math.inf, flops=math.inf), window=3))
"""Of the features, in their order."""
