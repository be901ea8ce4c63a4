"""Who may have done it: what grew last and acts on the host's output."""

from collections.abc import Callable

import torch
from torch import Tensor

from esper_lightning.kasmina.bed import SeedBed
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import SeedStage

_ACTING = (
    SeedStage.BLENDING,
    SeedStage.SHADOWING,
    SeedStage.PROBATIONARY,
    SeedStage.CULLED,
)


def acting(bed: SeedBed) -> list[SeedSlot]:
    """Slots whose seed acts on the network's output, as one in isolation does not.

    One that was culled acts as long as it ramps out.
    """
    return [
        slot
        for slot in bed.slots.values()
        if slot.record.seed is not None and slot.record.stage in _ACTING
    ]


def suspects(bed: SeedBed, *, since: int) -> list[SeedSlot]:
    """Slots whose seed, or last fossil, may have harmed the network.

    Of the seeds that act, those that hold or emit what is not finite; where there are none, those
    that were planted last, together. Without seeds that act, the fossils that were committed last.

    Args:
        bed: the slots.
        since: epoch before which a fossil was committed that is not blamed any more.
    """
    seeds = acting(bed)
    broken = [slot for slot in seeds if _is_broken(slot)]
    return broken or _latest(seeds, _planted) or _latest(_young_fossils(bed, since), _committed)


def what_grew(slot: SeedSlot) -> tuple[str, int] | None:
    """Blueprint and epoch of planting of a slot's live seed, or else of its last fossil."""
    record = slot.record
    grown = record.seed or (record.fossils[-1] if record.fossils else None)
    return None if grown is None else (grown.blueprint, grown.planted_epoch)


def _young_fossils(bed: SeedBed, since: int) -> list[SeedSlot]:
    slots = (slot for slot in bed.slots.values() if slot.record.seed is None)
    return [slot for slot in slots if slot.record.fossils and _committed(slot) >= since]


def _latest(slots: list[SeedSlot], epoch: Callable[[SeedSlot], int]) -> list[SeedSlot]:
    last = max(map(epoch, slots), default=-1)
    return [slot for slot in slots if epoch(slot) == last]


def _planted(slot: SeedSlot) -> int:
    assert slot.record.seed is not None
    return slot.record.seed.planted_epoch


def _committed(slot: SeedSlot) -> int:
    return slot.record.fossils[-1].fossilized_epoch


def _is_broken(slot: SeedSlot) -> bool:
    assert slot.seed is not None
    seen: list[Tensor] = list(slot.seed.parameters())
    outputs = slot.sample_output(slot.seed)
    # What it makes of an input that is not finite tells nothing.
    if outputs is not None and torch.isfinite(outputs[1]).all():
        seen.append(outputs[0])
    return not all(bool(torch.isfinite(tensor).all()) for tensor in seen)
