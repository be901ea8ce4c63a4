"""Seeds that do harm: one that breaks its isolation, one that explodes."""

import random
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from esper_lightning import karn
from esper_lightning.karn.adversarial import TurnsBad
from esper_lightning.kasmina import Branch
from esper_lightning.leyline import (
    Event,
    Incubation,
    Intervention,
    ParameterValue,
    SeedStage,
    SlotShape,
    StageChanged,
)
from esper_lightning.nissa.drills.policies import PLANTED, PlantsOnce
from esper_lightning.nissa.drills.scene import Drill, Scene

LEAKING = "leaking_seed"
"""In no catalogue."""

HEALTHY_PASSES = 5
"""For which the exploding seed looks like any other."""


class LeakingSeed(TurnsBad):
    """Draws from Python's generator, which everybody shares, in its backward pass."""

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:  # noqa: ARG002
        """The healthy output."""
        if out.requires_grad:
            hooked: Any = out  # torch leaves its hooks without types
            hooked.register_hook(lambda gradient: gradient * (1 + 0 * random.random()))
        return out


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    """A branch of the catalogue, or the leaking seed."""
    if name == LEAKING:
        return LeakingSeed(shape, onset=0)
    return karn.build(name, parameters, shape)


def culled(event: Event) -> str:
    """Whether a seed was culled, and why."""
    if isinstance(event, StageChanged) and event.after is SeedStage.CULLED:
        return f"{event.blueprint} in {event.slot}: {event.reason}"
    return ""


def rolled_back(event: Event) -> str:
    """Whether an epoch was undone, and why."""
    if isinstance(event, Intervention) and event.restored is not None:
        return f"epoch {event.epoch} is undone, that of {event.restored} is back: {event.alarm}"
    return ""


def _isolation_failure(scene: Scene) -> None:
    def quarantined(event: Event) -> str:
        return culled(event) if "quarantined" in culled(event) else ""

    def at_epoch(epoch: int) -> None:
        if epoch == PLANTED + 1:
            scene.fail("a seed in isolation draws from a generator that its host uses too")

    scene.fit(
        PlantsOnce(LEAKING, {}),
        incubation=Incubation.STRAIGHT_THROUGH,
        build=build,
        seen={"quarantine": quarantined},
        at_epoch=at_epoch,
    )


def _exploding_seed(scene: Scene) -> None:
    def at_epoch(epoch: int) -> None:
        if epoch == PLANTED + 1:
            scene.fail("a seed multiplies its output by a million")

    scene.fit(
        PlantsOnce("exploding_gain", {"onset": HEALTHY_PASSES, "gain": 1e6}),
        seen={"rollback": rolled_back, "cull": culled},
        at_epoch=at_epoch,
    )


DRILLS = (
    Drill(
        name="isolation_failure",
        text="a seed in training disturbs its host; it is found, quarantined and culled.",
        alerts=("kasmina_isolation_violation",),
        reactions=("quarantine",),
        play=_isolation_failure,
    ),
    Drill(
        name="exploding_seed",
        text="a seed explodes; the epoch is undone, and the seed culled.",
        alerts=("tolaria_rollback",),
        reactions=("rollback", "cull"),
        play=_exploding_seed,
    ),
)
