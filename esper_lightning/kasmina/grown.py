"""What has grown in a slot, with what each branch was built from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import ParameterValue, SeedStage


@dataclass(frozen=True)
class Grown:
    """One branch of a slot.

    Attributes:
        branch: the module.
        blueprint: its name.
        parameters: of its constructor.
        apart: it runs apart from the host: no gradient flows from it into the host.
    """

    branch: nn.Module
    blueprint: str
    parameters: Mapping[str, ParameterValue]
    apart: bool


def grown_in(slot: SeedSlot) -> Iterator[Grown]:
    """The fossils of a slot, then its live seed."""
    for branch, fossil in zip(slot.fossils, slot.record.fossils, strict=True):
        yield Grown(branch, fossil.blueprint, fossil.parameters, apart=False)
    seed, record = slot.seed, slot.record.seed
    if seed is not None and record is not None:
        apart = slot.record.stage is not SeedStage.PROBATIONARY
        yield Grown(seed, record.blueprint, record.parameters, apart=apart)
