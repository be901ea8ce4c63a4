"""Compilations that fail."""

from esper_lightning.callbacks import Tezzeret
from esper_lightning.leyline import CommandKind, Incubation, SystemState
from esper_lightning.nissa.drills.policies import SLOT, PlantsOnce
from esper_lightning.nissa.drills.scene import Drill, Scene
from esper_lightning.tamiyo import Choice

TIMEOUT_S = 0.3
"""No compiler is ready by then: it has not even imported torch."""

BLUEPRINT = "parallel_conv"
EXPANSIONS = (0.5, 1.0, 2.0)
"""Of the seeds that may be planted: each is compiled for itself, in isolation and coupled."""


class _MayPlant(PlantsOnce):
    """Says what it may plant, so that it is made ready."""

    def candidates(self, state: SystemState) -> list[Choice]:  # noqa: ARG002
        """The seed that it plants, and two others."""
        return [
            Choice(
                kind=CommandKind.GERMINATE,
                slot=SLOT,
                blueprint=BLUEPRINT,
                parameters={"expansion": expansion},
                reason="it may be planted",
            )
            for expansion in EXPANSIONS
        ]


def _compile_failure(scene: Scene) -> None:
    tezzeret = Tezzeret(library=scene.folder / "library", compile=True, limit=2, timeout=TIMEOUT_S)

    def at_epoch(epoch: int) -> None:
        if epoch == 1:
            scene.fail(f"every compilation hangs, and is ended after {TIMEOUT_S} s")
        if tezzeret.tally.retries:
            scene.react("retry", "what failed is tried once more, beside training")
        if tezzeret.tally.eager:
            scene.react("eager", "it failed twice, the library says so, and the seed runs eager")

    scene.fit(
        _MayPlant(BLUEPRINT, {"expansion": EXPANSIONS[1]}),
        incubation=Incubation.STRAIGHT_THROUGH,
        at_epoch=at_epoch,
        callbacks=[tezzeret],
    )
    if tezzeret.tally.compiled:
        scene.wrong("a branch runs by code that nobody could compile")


DRILLS = (
    Drill(
        name="compile_failure",
        text="nothing can be compiled; it is tried once more, and seeds run eager.",
        alerts=("tezzeret_compile_retry_high",),
        reactions=("retry", "eager"),
        play=_compile_failure,
    ),
)
