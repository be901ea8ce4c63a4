"""What was grown, or the first cohorts of it, as a static network from scratch."""

from collections.abc import Sequence

from torch import nn

from esper_lightning import karn
from esper_lightning.evidence.flops import sample_flops
from esper_lightning.evidence.frontier.tasks import Task
from esper_lightning.kasmina import LifecycleRules, SeedBed, insert_slots
from esper_lightning.leyline import GrownSeed, ParameterValue


def first_cohorts(grown: Sequence[GrownSeed], number: int) -> list[GrownSeed]:
    """The branches of the cohorts that were planted first, ``number`` of them or all there are."""
    epochs = sorted({branch.planted_epoch for branch in grown})[:number]
    return [branch for branch in grown if branch.planted_epoch in epochs]


def network(task: Task, branches: Sequence[GrownSeed]) -> nn.Module:
    """The task's host with branches in place, freshly initialised."""
    made = task.host(**task.shape)
    if branches:
        slots = insert_slots(made, sorted({each.slot for each in branches}), build=karn.build)
        made(task.inputs)  # slots learn their shapes
        bed = SeedBed(made, slots, rules=LifecycleRules(), fits=lambda _: True)
        bed.start_with(branches)
    return made


def flops(task: Task, branches: Sequence[GrownSeed]) -> float:
    """Of one sample, forward and backward, with the host and branches."""
    return sample_flops(network(task, branches), task.inputs)


def as_override(branches: Sequence[GrownSeed]) -> str:
    """The override of ``train.py`` by which a run begins with branches.

    >>> as_override([GrownSeed(slot="blocks.0", blueprint="parallel_mlp", parameters={"e": 4.0})])
    "kasmina.fossils=[{slot:'blocks.0',blueprint:parallel_mlp,parameters:{e:4.0}}]"
    """
    return f"kasmina.fossils=[{','.join(_told(branch) for branch in branches)}]"


def _told(branch: GrownSeed) -> str:
    parameters = ",".join(f"{name}:{_value(value)}" for name, value in branch.parameters.items())
    return f"{{slot:'{branch.slot}',blueprint:{branch.blueprint},parameters:{{{parameters}}}}}"


def _value(value: ParameterValue) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
