"""What a controller may see of a network's slots."""

from msgspec.structs import replace

from esper_lightning.kasmina.bed import SeedBed
from esper_lightning.kasmina.moment import Moment
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.kasmina.watch import StepWatch
from esper_lightning.leyline import FossilState, SeedState, SystemState, legal_commands


def system_state(bed: SeedBed, moment: Moment, *, host_parameters: int) -> SystemState:
    """The state at a boundary, after gates were asked and before commands are applied.

    Args:
        bed: the slots.
        moment: now.
        host_parameters: of the network before any growth.
    """
    return SystemState(
        run_id=moment.run_id,
        epoch=moment.epoch,
        max_epochs=moment.max_epochs,
        global_step=moment.step,
        steps_per_epoch=moment.steps_per_epoch,
        objective=moment.objective,
        metrics=dict(moment.metrics),
        slots=tuple(seed_state(slot, bed.watch, moment) for slot in bed.slots.values()),
        host_parameters=host_parameters,
        num_parameters=bed.num_parameters(),
        host_flops=moment.host_flops,
        flops=moment.flops,
        total_flops=moment.total_flops,
    )


def seed_state(slot: SeedSlot, watch: StepWatch, moment: Moment) -> SeedState:
    """One slot as a controller sees it."""
    record = slot.record
    common = SeedState(
        slot=slot.path,
        stage=record.stage,
        paused=record.paused,
        age=record.age,
        shape=record.shape,
        base_parameters=sum(p.numel() for p in slot.base_layer.parameters()),
        pressure=watch.pressure.mean(slot.path),
        alpha=float(slot.alpha),
        legal=legal_commands(record.stage, paused=record.paused, has_fossils=bool(record.fossils)),
        fossils=tuple(
            FossilState(
                blueprint=fossil.blueprint,
                parameters=fossil.parameters,
                num_parameters=fossil.num_parameters,
                planted_epoch=fossil.planted_epoch,
                fossilized_epoch=fossil.fossilized_epoch,
            )
            for fossil in record.fossils
        ),
        num_culls=len(record.culls),
        quarantined=tuple(record.quarantined),
        reason=record.reason,
    )
    seed = record.seed
    if seed is None:
        return common
    last = seed.evidence[-1] if seed.evidence else None
    return replace(
        common,
        seed_age=moment.epoch - seed.planted_epoch,
        blueprint=seed.blueprint,
        parameters=seed.parameters,
        num_parameters=seed.num_parameters,
        gradient_norm=last.gradient_norm if last else None,
        dropped_gradients=last.dropped if last else None,
        output_ratio=last.output_ratio if last else None,
        isolation_violations=seed.isolation_violations if seed.isolation_checks else None,
        gain=seed.gain,
        rent=seed.rent,
        cohort=seed.planted_epoch,
        gate=seed.gate,
    )
