"""Rows of runs that never were, for what reads rows."""

from collections.abc import Sequence
from itertools import zip_longest

from esper_lightning.evidence.frontier.rows import Judgement, Point, Row
from esper_lightning.leyline import CulledSeed, GrownSeed, RunSummary

KEPT = GrownSeed(
    slot="a",
    blueprint="parallel_conv",
    parameters={},
    num_parameters=900,
    planted_epoch=3,
    fossilized_epoch=6,
    reason="pays",
)
CULLED = CulledSeed(
    slot="b",
    blueprint="parallel_mlp",
    parameters={},
    planted_epoch=3,
    culled_epoch=6,
    reason="does not",
)


def summary(
    *,
    test: float,
    val: float = 0.9,
    flops: float = 1e9,
    parameters: int = 1000,
    wall_s: float = 10.0,
    steps: int = 100,
    epochs: int = 10,
    flops_per_sample: float = 2.0,
    grown: Sequence[GrownSeed] = (),
    culled: Sequence[CulledSeed] = (),
) -> RunSummary:
    """What a run would have reached."""
    return RunSummary(
        run_id="r",
        outcome="finished",
        seed=0,
        host="CNN",
        policy="heuristic",
        incubation="direct",
        epochs=epochs,
        steps=steps,
        validation={"val/acc": val},
        test={"test/acc": test},
        host_parameters=100,
        parameters=parameters,
        host_flops_per_sample=1.0,
        flops_per_sample=flops_per_sample,
        host_training_flops=1.0,
        training_flops=flops,
        wall_s=wall_s,
        grown=tuple(grown),
        culled=tuple(culled),
        versions={"torch": "1"},
    )


def row(
    arm: str,
    seed: int,
    told: RunSummary,
    *,
    task: str = "digits",
    curve: Sequence[tuple[float, float]] = (),
    objective: Sequence[float] = (),
    judgements: Sequence[Judgement] = (),
) -> Row:
    """A row of it; ``curve`` holds FLOPs and validation accuracies, epoch by epoch, ``objective``
    losses."""
    return Row(
        task=task,
        arm=arm,
        seed=seed,
        overrides=("data=digits",),
        commit="abc",
        summary=told,
        curve=tuple(
            Point(epoch=epoch, flops=flops, val=val, objective=value)
            for epoch, ((flops, val), value) in enumerate(
                zip_longest(curve or [(1.0, 0.5)] * len(objective), objective)
            )
        ),
        judgements=tuple(judgements),
    )
