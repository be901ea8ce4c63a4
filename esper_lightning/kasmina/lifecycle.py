"""Moving slots from stage to stage: what is allowed, and what each move does."""

from msgspec.structs import replace

from esper_lightning.kasmina.branch import Branch
from esper_lightning.kasmina.moment import Moment
from esper_lightning.kasmina.parameter_groups import SlotGroups
from esper_lightning.kasmina.random_stream import RandomStream
from esper_lightning.kasmina.record import SeedRecord
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import (
    TRANSITIONS,
    BlendSchedule,
    CulledSeed,
    GateResult,
    GrownSeed,
    IllegalTransition,
    Incubation,
    SeedStage,
    StageChanged,
)

_ISOLATED = (SeedStage.GERMINATED, SeedStage.TRAINING)


def move(
    slot: SeedSlot,
    after: SeedStage,
    *,
    groups: SlotGroups,
    moment: Moment,
    reason: str,
    gate: GateResult | None = None,
    at_once: bool = False,
) -> StageChanged:
    """Move a slot to another stage, with all that belongs to it.

    Args:
        slot: the slot.
        after: where to.
        groups: the optimiser's groups.
        moment: now.
        reason: in words.
        gate: the answer that let it pass or stopped it.
        at_once: of a cull: do not ramp out.

    Raises:
        IllegalTransition: the table does not contain this move; nothing was changed.
    """
    record, before, path = slot.record, slot.record.stage, slot.path
    if after not in TRANSITIONS[before]:
        allowed = sorted(stage.name for stage in TRANSITIONS[before])
        raise IllegalTransition(path, before, f"-> {after.name}", allowed)
    seed = record.seed
    event = StageChanged(
        run_id=moment.run_id,
        epoch=moment.epoch,
        step=moment.step,
        slot=path,
        before=before,
        after=after,
        blueprint=seed.blueprint if seed else "",
        parameters=seed.parameters if seed else {},
        num_parameters=seed.num_parameters if seed else 0,
        gate=gate,
        reason=reason,
    )
    match after:
        case SeedStage.TRAINING:
            _train(slot, groups, moment)
        case SeedStage.BLENDING:
            record.ramp_start, record.ramp_from = moment.step, 0.0
        case SeedStage.SHADOWING:
            _couple(slot)
        case SeedStage.PROBATIONARY:
            _couple(slot)
            if before is SeedStage.GERMINATED:
                _train(slot, groups, moment)
        case SeedStage.FOSSILIZED:
            _fossilize(slot, groups, moment, reason)
        case SeedStage.CULLED:
            _cull(slot, groups, moment, reason, at_once=at_once or before in _ISOLATED)
        case SeedStage.EMBARGOED:
            remove_seed(slot)
    record.stage, record.age, record.reason, record.paused_at = after, 0, reason, None
    if seed is not None:
        seed.objective_at_entry = moment.objective.value
        seed.gate = seed.gain = seed.rent = None  # what the gate before it said is in the event
    return event


def plant(slot: SeedSlot, branch: Branch, record: SeedRecord) -> None:
    """Put a branch into a slot as its live seed."""
    slot.record.seed = record
    slot.seed = branch.requires_grad_(True)
    slot.random = RandomStream(record.rng_seed)
    slot.record.num_planted += 1
    slot.set_alpha(0.0)


def add_fossil(slot: SeedSlot, branch: Branch, grown: GrownSeed) -> None:
    """Make a branch a permanent part of a slot's output."""
    slot.fossils.append(branch.requires_grad_(True))
    slot.record.fossils = [*slot.record.fossils, grown]


def remove_culled(slot: SeedSlot) -> None:
    """Nothing of a seed that was ramping out stays behind when training ends before its ramp."""
    if slot.record.stage is SeedStage.CULLED:
        remove_seed(slot)


def take_last_fossil(
    slot: SeedSlot, moment: Moment, *, blend: BlendSchedule, rng_seed: int, num_parameters: int
) -> None:
    """Make the last fossil the slot's seed again; the slot's output stays the same.

    The last one only: what came later was trained on top of what came before.

    Args:
        slot: with a fossil.
        moment: now.
        blend: along which it may ramp out.
        rng_seed: of its random stream.
        num_parameters: of the network, the fossil included.
    """
    grown = slot.record.fossils[-1]
    record = SeedRecord(
        blueprint=grown.blueprint,
        parameters=dict(grown.parameters),
        incubation=Incubation.DIRECT,
        blend=blend,
        num_parameters=grown.num_parameters,
        planted_epoch=grown.planted_epoch,
        planted_step=moment.step,
        rng_seed=rng_seed,
        network_parameters_before=num_parameters - grown.num_parameters,
        flops_before=None,
    )
    fossil = slot.fossils[-1]
    assert isinstance(fossil, Branch)
    del slot.fossils[-1]
    slot.record.fossils = slot.record.fossils[:-1]
    slot.seed, slot.record.seed = fossil, record
    slot.random = RandomStream(record.rng_seed)
    slot.set_alpha(1.0)


def remove_seed(slot: SeedSlot) -> None:
    """Nothing of a seed stays but its entry in the slot's history."""
    slot.seed, slot.record.seed = None, None
    slot.record.ramp_start, slot.record.ramp_from = None, 0.0
    slot.set_alpha(0.0)


def pause(slot: SeedSlot, moment: Moment, reason: str) -> None:
    """Stop a seed's training and clocks."""
    assert slot.seed is not None
    slot.record.paused_at, slot.record.reason = moment.step, reason
    slot.seed.requires_grad_(False)


def resume(slot: SeedSlot, moment: Moment, reason: str) -> None:
    """Let a paused seed go on; a ramp continues where it stopped."""
    record = slot.record
    assert slot.seed is not None
    assert record.paused_at is not None
    if record.ramp_start is not None:
        record.ramp_start += moment.step - record.paused_at
    record.paused_at, record.reason = None, reason
    slot.seed.requires_grad_(True)


def delay(slot: SeedSlot, steps: int) -> None:
    """Set what happens at a step of the run to ``steps`` later."""
    record = slot.record
    if record.seed is not None:
        record.seed.planted_step += steps
    if record.ramp_start is not None:
        record.ramp_start += steps
    if record.paused_at is not None:
        record.paused_at += steps


def _train(slot: SeedSlot, groups: SlotGroups, moment: Moment) -> None:
    assert slot.seed is not None
    groups.join(slot.path, slot.seed, moment.step)


def _couple(slot: SeedSlot) -> None:
    slot.record.ramp_start = None
    slot.set_alpha(1.0)


def _fossilize(slot: SeedSlot, groups: SlotGroups, moment: Moment, reason: str) -> None:
    seed = slot.record.seed
    assert seed is not None
    assert slot.seed is not None
    groups.fossilize(slot.path)
    grown = GrownSeed(
        slot=slot.path,
        blueprint=seed.blueprint,
        parameters=seed.parameters,
        num_parameters=seed.num_parameters,
        planted_epoch=seed.planted_epoch,
        fossilized_epoch=moment.epoch,
        reason=reason,
    )
    add_fossil(slot, slot.seed, grown)
    remove_seed(slot)


def _cull(
    slot: SeedSlot, groups: SlotGroups, moment: Moment, reason: str, *, at_once: bool
) -> None:
    seed = slot.record.seed
    assert seed is not None
    assert slot.seed is not None
    groups.leave(slot.path)
    slot.record.culls = [
        *slot.record.culls,
        CulledSeed(
            slot=slot.path,
            blueprint=seed.blueprint,
            parameters=seed.parameters,
            planted_epoch=seed.planted_epoch,
            culled_epoch=moment.epoch,
            reason=reason,
        ),
    ]
    alpha = float(slot.alpha)
    # Alpha is set before a step, so the last one must find it at 0.
    left = seed.blend.num_steps if moment.steps_left is None else moment.steps_left - 1
    if at_once or left < 1 or alpha == 0.0:
        remove_seed(slot)
        return
    if left < seed.blend.num_steps:
        seed.blend = replace(seed.blend, num_steps=left)
    for parameter in slot.seed.requires_grad_(False).parameters():
        parameter.grad = None
    slot.record.ramp_start, slot.record.ramp_from = moment.step, alpha
