"""Runs made of records alone, in which slots take every path of the lifecycle."""

import math
import random
from dataclasses import dataclass

from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    Comparison,
    Decision,
    Event,
    FossilState,
    Gate,
    GateResult,
    Measurement,
    Objective,
    RunEnded,
    RunStarted,
    SeedStage,
    SeedState,
    StageChanged,
    SystemState,
)

RUN_ID = "3f9c0a12b7de"
HOST = 1702
NEXT = {
    SeedStage.TRAINING: SeedStage.BLENDING,
    SeedStage.BLENDING: SeedStage.SHADOWING,
    SeedStage.SHADOWING: SeedStage.PROBATIONARY,
    SeedStage.CULLED: SeedStage.EMBARGOED,
    SeedStage.EMBARGOED: SeedStage.RESETTING,
    SeedStage.RESETTING: SeedStage.DORMANT,
    SeedStage.FOSSILIZED: SeedStage.DORMANT,
}
GATE = GateResult(
    gate=Gate.G1_GRADIENT_HEALTH,
    measurements=(
        Measurement(
            name="gradient norm", value=0.5, comparison=Comparison.AT_LEAST, threshold=1e-6
        ),
        Measurement(name="missing", value=None, comparison=Comparison.AT_MOST, threshold=1.0),
    ),
)


@dataclass
class _Slot:
    stage: SeedStage = SeedStage.UNKNOWN
    age: int = 0
    blueprint: str = ""
    num_parameters: int = 0
    alpha: float = 0.0
    planted: int = -1
    fossils: tuple[FossilState, ...] = ()


def synthetic_run(
    slots: tuple[str, ...],
    epochs: int,
    *,
    seed: int = 0,
    plant: float = 0.5,
    cull: float = 0.3,
    blueprints: tuple[str, ...] = ("parallel_conv", "squeeze_excite"),
    metrics: tuple[str, ...] = ("acc", "loss"),
    outcome: str = "finished",
) -> list[Event]:
    """Events of one run, in the order in which Kasmina emits them."""
    rng = random.Random(seed)
    live = {path: _Slot() for path in slots}
    events: list[Event] = [
        RunStarted(
            run_id=RUN_ID, slots=slots, host_parameters=HOST, max_epochs=epochs, versions={"a": "1"}
        )
    ]

    def move(epoch: int, path: str, after: SeedStage, reason: str = "") -> None:
        slot = live[path]
        gate = GATE if after is SeedStage.BLENDING else None
        events.append(
            StageChanged(
                run_id=RUN_ID,
                epoch=epoch,
                step=10 * (epoch + 1),
                slot=path,
                before=slot.stage,
                after=after,
                blueprint=slot.blueprint,
                num_parameters=slot.num_parameters,
                gate=gate,
                reason=reason,
            )
        )
        slot.stage, slot.age = after, 0

    for path in slots:
        move(-1, path, SeedStage.DORMANT, "maps vector 8")
    for epoch in range(epochs):
        for path, slot in live.items():
            slot.age += 1
            slot.alpha = (
                min(slot.alpha + 0.4, 1.0) if slot.stage is SeedStage.BLENDING else slot.alpha
            )
            ready = slot.alpha >= 1.0 if slot.stage is SeedStage.BLENDING else slot.age >= 1
            if slot.stage in NEXT and ready:
                move(epoch, path, NEXT[slot.stage], "its time had come")
                if slot.stage in (SeedStage.EMBARGOED, SeedStage.DORMANT):
                    slot.blueprint, slot.num_parameters, slot.alpha = "", 0, 0.0
        events.append(_state(live, epoch, epochs, metrics, rng))
        for path, slot in live.items():
            if slot.stage is SeedStage.DORMANT and rng.random() < plant:
                slot.blueprint, slot.num_parameters = rng.choice(blueprints), rng.randint(1, 999)
                slot.planted = epoch
                events.append(_decision(epoch, path, slot.blueprint))
                move(epoch, path, SeedStage.GERMINATED, "plateau")
                move(epoch, path, SeedStage.TRAINING, "G0 passed")
            elif slot.stage is not SeedStage.PROBATIONARY or slot.age < 1:
                continue
            elif rng.random() < cull:
                move(epoch, path, SeedStage.CULLED, "gain 0.001 < rent 0.01")
            else:
                slot.fossils += (
                    FossilState(
                        blueprint=slot.blueprint,
                        parameters={"width": 8},
                        num_parameters=slot.num_parameters,
                        planted_epoch=slot.planted,
                        fossilized_epoch=epoch,
                    ),
                )
                move(epoch, path, SeedStage.FOSSILIZED, "G4 passed")
                slot.num_parameters = 0
    events.append(RunEnded(run_id=RUN_ID, epoch=epochs, step=10 * epochs, outcome=outcome))
    return events


def _state(
    live: dict[str, _Slot], epoch: int, epochs: int, metrics: tuple[str, ...], rng: random.Random
) -> SystemState:
    accuracy = 0.95 - 0.8 * math.exp(-(epoch + 1) / 4) + rng.gauss(0, 0.005)
    values = {"acc": accuracy, "loss": 1 - accuracy}
    logged = {
        f"{split}/{name}": values[name] + (0.01 if split == "train" else 0)
        for name in metrics
        for split in ("train", "val")
    }
    grown = sum(s.num_parameters + sum(f.num_parameters for f in s.fossils) for s in live.values())
    return SystemState(
        run_id=RUN_ID,
        epoch=epoch,
        max_epochs=epochs,
        global_step=10 * (epoch + 1),
        steps_per_epoch=10,
        objective=Objective(name="val/loss", value=logged.get("val/loss")),
        metrics=logged,
        slots=tuple(
            SeedState(
                slot=path,
                stage=slot.stage,
                age=slot.age,
                blueprint=slot.blueprint,
                num_parameters=slot.num_parameters,
                alpha=slot.alpha,
                fossils=slot.fossils,
            )
            for path, slot in live.items()
        ),
        host_parameters=HOST,
        num_parameters=HOST + grown,
        total_flops=1e6 * (epoch + 1),
    )


def _decision(epoch: int, path: str, blueprint: str) -> Decision:
    return Decision(
        run_id=RUN_ID,
        epoch=epoch,
        policy="random",
        command=AdaptationCommand(
            id=f"{epoch}/{path}",
            run_id=RUN_ID,
            kind=CommandKind.GERMINATE,
            slot=path,
            blueprint=blueprint,
            parameters={"width": 8, "gain": 0.5, "norm": "layer", "bias": True},
            reason="plateau",
        ),
        mask=(CommandKind.GERMINATE, CommandKind.NOOP),
        log_probability=-0.7,
    )
