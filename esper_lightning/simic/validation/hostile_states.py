"""Boundaries that no run should have, and whether what is chosen there could be carried out."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence

from esper_lightning.karn import CATALOGUE, Blueprint
from esper_lightning.leyline import (
    LIVE_STAGES,
    CommandKind,
    Comparison,
    FeatureKind,
    FeatureMap,
    FossilState,
    Gate,
    GateResult,
    Hardware,
    InvalidArgument,
    LayerState,
    Measurement,
    Objective,
    SeedStage,
    SeedState,
    SlotShape,
    SystemState,
    legal_commands,
)
from esper_lightning.tamiyo import Choice, GrowthBudget
from esper_lightning.tamiyo.shortlist import offer

MAX_SLOTS, MAX_LAYERS = 20, 90
"""More than a policy is measured with, and more layers than it looks at."""

CROWDS = (0, 1, 300)
"""Slots of the states of :func:`crowds`."""

_ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1e308, -1e308, None)
_COUNTS = (0, 0, 1, 3, 20, 2**31, 2**62)


def boundaries(
    num: int, *, seed: int, catalogue: Mapping[str, Blueprint] = CATALOGUE
) -> Iterator[SystemState]:
    """States of runs that never were.

    They have any number of slots, in every stage, and of layers, in graphs with cycles; numbers
    that are NaN, infinite, huge, 0 or missing, unknown shapes, and epochs that go back.

    Args:
        num: how many.
        seed: of their random stream.
        catalogue: of the blueprints that have grown.
    """
    draw = random.Random(seed)
    names = (*catalogue, "of_another_release")
    for _ in range(num):
        yield _boundary(draw, names, draw.choice((0, 1, 2, 3, 5, 8, 16, MAX_SLOTS)))


def crowds(*, seed: int, catalogue: Mapping[str, Blueprint] = CATALOGUE) -> list[SystemState]:
    """States with no slot, with one, and with more than any host has; otherwise as others.

    Args:
        seed: of their random stream.
        catalogue: of the blueprints that have grown.
    """
    draw = random.Random(seed)
    return [_boundary(draw, tuple(catalogue), num) for num in CROWDS]


def violations(
    state: SystemState,
    choices: Sequence[Choice],
    *,
    budget: GrowthBudget,
    catalogue: Mapping[str, Blueprint] = CATALOGUE,
) -> list[str]:
    """What is wrong with a policy's choices at a boundary, in words; empty when nothing is.

    Args:
        state: at the boundary.
        choices: all of them; those that are refused may be anything.
        budget: that they must keep together.
        catalogue: that they may plant from.
    """
    carried_out = [choice for choice in choices if not choice.refused]
    waits = [choice.kind is CommandKind.NOOP for choice in carried_out]
    named = [choice.slot for choice in carried_out if choice.slot]
    found = []
    if not carried_out:
        found.append("nothing is chosen")
    if any(waits[:-1]):
        found.append("a NOOP that is not the last choice")
    if len(set(named)) < len(named):
        found.append("two choices for one slot")
    room = budget.room(state)
    for choice in carried_out:
        found += _flaws(state, choice, catalogue)
        if choice.kind is CommandKind.GERMINATE and not found:
            shape = state.slot(choice.slot).shape
            assert shape is not None
            price = offer(catalogue[choice.blueprint], shape, choice.parameters).price
            if not room.admits(price):
                found.append(f"{choice.blueprint} in {choice.slot} is beyond the budget")
            room = room.minus(price)
    return found


def _flaws(state: SystemState, choice: Choice, catalogue: Mapping[str, Blueprint]) -> Iterator[str]:
    numbers = (choice.log_probability, choice.value, choice.share)
    if not all(number is None or math.isfinite(number) for number in numbers):
        yield f"{choice.kind.name} with numbers {numbers}"
    if choice.log_probability is not None and choice.log_probability > 1e-6:
        yield f"{choice.kind.name} with log-probability {choice.log_probability}"
    if choice.kind is CommandKind.NOOP:
        return
    try:
        slot = state.slot(choice.slot)
    except KeyError:
        yield f"{choice.kind.name} of {choice.slot!r}, which is no slot"
        return
    if choice.kind not in slot.legal:
        yield f"{choice.kind.name} of {slot.slot}, which takes {slot.legal}"
    if choice.kind is not CommandKind.GERMINATE:
        return
    blueprint = catalogue.get(choice.blueprint)
    if blueprint is None or slot.shape is None or not blueprint.fits(slot.shape):
        yield f"{choice.blueprint} does not fit {slot.slot}"
        return
    if choice.blueprint in slot.quarantined:
        yield f"{choice.blueprint} is in quarantine in {slot.slot}"
    try:
        blueprint.resolve(choice.parameters)
    except InvalidArgument as error:
        yield str(error)


def _boundary(draw: random.Random, names: Sequence[str], num_slots: int) -> SystemState:
    paths = [f"block.{number}" for number in range(num_slots)]
    epoch = draw.choice((0, 1, 2, 5, 9, 30, 2**31))
    host = draw.choice((20_000, 10**7, *_COUNTS))
    return SystemState(
        run_id="hostile",
        epoch=epoch,
        max_epochs=draw.choice((None, 0, 1, epoch + 1, epoch + 2, epoch + 9, 2**62)),
        global_step=draw.choice(_COUNTS),
        steps_per_epoch=draw.choice(_COUNTS),
        objective=Objective(name="val/loss", mode=draw.choice(("min", "max")), value=_number(draw)),
        metrics={"val/loss": _number(draw) or 0.0},
        slots=tuple(_slot(draw, path, names) for path in paths),
        host_parameters=host,
        num_parameters=draw.choice((host, host, *_COUNTS)),
        host_flops=_number(draw),
        flops=_number(draw),
        total_flops=_number(draw),
        layers=_layers(draw, paths),
        hardware=draw.choice((None, Hardware(device="cpu", memory_bytes=2**62))),
        learning_rate=_number(draw),
        rollbacks=draw.choice((None, *_COUNTS)),
    )


def _slot(draw: random.Random, path: str, names: Sequence[str]) -> SeedState:
    stage = draw.choice(list(SeedStage))
    live = stage in LIVE_STAGES
    paused = live and draw.random() < 0.2
    fossils = tuple(_fossil(draw, names) for _ in range(draw.choice((0, 0, 1, 4))))
    legal = legal_commands(stage, paused=paused, has_fossils=bool(fossils))
    if draw.random() < 0.3:
        legal = tuple(draw.sample(legal, draw.randint(0, len(legal))))
    return SeedState(
        slot=path,
        stage=stage,
        paused=paused,
        age=draw.choice(_COUNTS),
        seed_age=draw.choice((None, *_COUNTS)),
        shape=_shape(draw),
        base_parameters=draw.choice(_COUNTS),
        pressure=_number(draw),
        blueprint=draw.choice(names) if live else "",
        num_parameters=draw.choice(_COUNTS) if live else 0,
        alpha=_number(draw) or 0.0,
        gradient_norm=_number(draw),
        dropped_gradients=draw.choice((None, *_COUNTS)),
        output_ratio=_number(draw),
        gain=_number(draw),
        rent=_number(draw),
        cohort=draw.choice((None, 0, 5, 2**31)) if live else None,
        gate=_gate(draw),
        legal=legal,
        fossils=fossils,
        num_culls=draw.choice(_COUNTS),
        isolation_violations=draw.choice((None, 0, 2)),
        quarantined=tuple(draw.sample(names, draw.choice((0, 0, 1, min(9, len(names)))))),
    )


def _number(draw: random.Random) -> float | None:
    return draw.choice(_ODD) if draw.random() < 0.3 else draw.gauss(0.0, 1.0)


def _shape(draw: random.Random) -> SlotShape | None:
    if draw.random() < 0.1:
        return None
    features = [draw.choice((1, 2, 3, 8, 64, 512, 65_536)) for _ in range(2)]
    kind = draw.choice(list(FeatureKind))
    side = draw.choice((1, 7, 32))
    places = {FeatureKind.SPATIAL: (side, side), FeatureKind.TOKENS: (side,)}.get(kind, ())
    maps = (
        FeatureMap(kind, (each, *places) if kind is FeatureKind.SPATIAL else (*places, each))
        for each in features
    )
    return SlotShape(*maps)


def _gate(draw: random.Random) -> GateResult | None:
    if draw.random() < 0.3:
        return None
    measured = Measurement(
        name="gain", value=_number(draw), comparison=Comparison.AT_LEAST, threshold=0.0
    )
    return GateResult(gate=draw.choice(list(Gate)), measurements=(measured,))


def _fossil(draw: random.Random, names: Sequence[str]) -> FossilState:
    return FossilState(
        blueprint=draw.choice(names),
        parameters={},
        num_parameters=draw.choice(_COUNTS),
        planted_epoch=0,
        fossilized_epoch=draw.choice((0, 7, 2**31)),
    )


def _layers(draw: random.Random, slots: Sequence[str]) -> tuple[LayerState, ...]:
    num = draw.choice((0, 0, 3, 12, 40, MAX_LAYERS))
    paths = [*draw.sample(slots, draw.randint(0, len(slots))), *(f"a.b.{n}" for n in range(num))]
    draw.shuffle(paths)
    known = (*paths, "nowhere")
    return tuple(
        LayerState(
            path=path,
            module=draw.choice(("Conv2d", "Linear", "LayerNorm", "Block", "")),
            num_parameters=draw.choice(_COUNTS),
            reads=tuple(draw.choice(known) for _ in range(draw.choice((0, 1, 1, 2, 7)))),
        )
        for path in paths
    )
