"""Short runs whose records hold what a test asks for, and the pages that explain them."""

from typing import Any

from msgspec.structs import replace

from esper_lightning.leyline import (
    AdaptationCommand,
    AlarmLevel,
    CommandKind,
    Comparison,
    Decision,
    Event,
    FieldReport,
    FossilState,
    Gate,
    GateResult,
    Intervention,
    Measurement,
    Objective,
    Outcome,
    RunEnded,
    RunStarted,
    SeedStage,
    SeedState,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.explanation import explanation

RUN_ID = "3f9c0a12b7de"
SLOT = "features.2"
STARTED = RunStarted(
    run_id=RUN_ID, slots=(SLOT,), host_parameters=968, max_epochs=6, versions={"torch": "2.13.0"}
)
FINISHED = RunEnded(run_id=RUN_ID, epoch=6, step=60, outcome="finished")
LOSSES = (1.0, 0.8, 0.6, 0.5, 0.25, 0.2)
FOSSIL = FossilState(
    blueprint="parallel_conv",
    parameters={"expansion": 8.0},
    num_parameters=2340,
    planted_epoch=1,
    fossilized_epoch=4,
)
G4 = GateResult(
    gate=Gate.G4_SYSTEM_IMPACT,
    measurements=(
        Measurement(
            name="gain",
            value=0.318,
            comparison=Comparison.AT_LEAST,
            threshold=0.0331,
            unit="relative",
        ),
        Measurement(
            name="dropped gradients",
            value=None,
            comparison=Comparison.AT_MOST,
            threshold=0.1,
            unit="of steps",
        ),
    ),
)


def slot(**changed: Any) -> SeedState:
    """A dormant slot, but for what is said otherwise."""
    dormant = SeedState(
        slot=SLOT,
        stage=SeedStage.DORMANT,
        age=2,
        pressure=0.0619,
        legal=(CommandKind.GERMINATE, CommandKind.NOOP),
    )
    return replace(dormant, **changed)


LIVE = slot(
    stage=SeedStage.PROBATIONARY,
    seed_age=3,
    blueprint="parallel_conv",
    parameters={"expansion": 8.0},
    num_parameters=2340,
    alpha=1.0,
    gain=0.318,
    rent=0.0331,
    cohort=1,
    gate=G4,
    legal=(CommandKind.FOSSILIZE, CommandKind.CULL, CommandKind.NOOP),
)


def state(epoch: int, *slots: SeedState, **changed: Any) -> SystemState:
    """What was seen at the end of an epoch."""
    return replace(
        SystemState(
            run_id=RUN_ID,
            epoch=epoch,
            max_epochs=6,
            global_step=10 * (epoch + 1),
            steps_per_epoch=10,
            objective=Objective(name="val/loss", value=LOSSES[epoch % len(LOSSES)]),
            metrics={"val/acc": 1 - LOSSES[epoch % len(LOSSES)] / 2},
            slots=slots or (slot(),),
            host_parameters=968,
            num_parameters=968,
        ),
        **changed,
    )


def decision(epoch: int, kind: CommandKind = CommandKind.NOOP, **changed: Any) -> Decision:
    """A decision; fields of its command may be given beside its own."""
    command = AdaptationCommand(
        id=f"{epoch}/{kind.value}",
        run_id=RUN_ID,
        kind=kind,
        slot="" if kind in (CommandKind.NOOP, CommandKind.ROLLBACK) else SLOT,
        reason="it is too early",
    )
    of_command = {name: changed.pop(name) for name in list(changed) if hasattr(command, name)}
    made = Decision(
        run_id=RUN_ID, epoch=epoch, policy="heuristic", command=replace(command, **of_command)
    )
    return replace(made, **changed)


def moved(epoch: int, before: SeedStage, after: SeedStage, **changed: Any) -> StageChanged:
    """A move of the slot's seed."""
    change = StageChanged(
        run_id=RUN_ID,
        epoch=epoch,
        step=10 * (epoch + 1),
        slot=SLOT,
        before=before,
        after=after,
        blueprint="parallel_conv",
        parameters={"expansion": 8.0},
        num_parameters=2340,
    )
    return replace(change, **changed)


def reported(command_id: str, **changed: Any) -> FieldReport:
    """What a command led to."""
    report = FieldReport(
        id=f"of {command_id}",
        run_id=RUN_ID,
        command_id=command_id,
        slot=SLOT,
        blueprint="parallel_conv",
        kind=CommandKind.GERMINATE,
        first_epoch=2,
        last_epoch=4,
        outcome=Outcome.SUCCESS,
        deltas={"val/loss": -0.0521, "val/acc": 0.0123},
        reason="the curve fell below where it was heading",
    )
    return replace(report, **changed)


def intervened(epoch: int, **changed: Any) -> Intervention:
    """The governor undid the epoch."""
    event = Intervention(
        run_id=RUN_ID,
        epoch=epoch,
        step=10 * (epoch + 1),
        level=AlarmLevel.SEVERE,
        alarm="the loss is 20 times its mean",
        suspects=(SLOT,),
        restored=epoch - 1,
    )
    return replace(event, **changed)


def planted(epoch: int, **changed: Any) -> list[Event]:
    """A planting that was carried out: the decision and its moves."""
    chosen = decision(
        epoch,
        CommandKind.GERMINATE,
        blueprint="parallel_conv",
        parameters={"expansion": 8.0},
        reason="the curve is flat",
        mask=(CommandKind.GERMINATE, CommandKind.NOOP),
        **changed,
    )
    return [
        chosen,
        moved(epoch, SeedStage.DORMANT, SeedStage.GERMINATED, reason="the curve is flat"),
        moved(epoch, SeedStage.GERMINATED, SeedStage.PROBATIONARY, reason="G0 passed"),
    ]


def grown_run() -> list[Event]:
    """One seed is planted after epoch 2, becomes permanent after epoch 5 and pays."""
    live = [replace(LIVE, age=epoch - 1, seed_age=epoch - 1) for epoch in range(6)]
    early = [replace(seed, gain=None, rent=None, gate=None) for seed in live]
    kept = slot(stage=SeedStage.FOSSILIZED, age=1, fossils=(FOSSIL,), legal=())
    return [
        STARTED,
        moved(-1, SeedStage.UNKNOWN, SeedStage.DORMANT, blueprint="", reason="maps vector 8"),
        state(0),
        decision(0, reason="1 of the first 2 epochs are done"),
        state(1),
        *planted(1),
        state(2, early[2], num_parameters=3308),
        decision(2, reason="a seed is live (age 1)"),
        state(3, early[3], num_parameters=3308),
        decision(3, reason="a seed is live (age 2)"),
        state(4, live[4], num_parameters=3308, flops=404e3, host_flops=44.3e3, total_flops=2.9e9),
        decision(4, CommandKind.FOSSILIZE, reason="the whole cohort passed"),
        moved(4, SeedStage.PROBATIONARY, SeedStage.FOSSILIZED, gate=G4, reason="G4 passed"),
        reported("1/germinate"),
        state(5, kept, num_parameters=3308, flops=404e3, host_flops=44.3e3, total_flops=3.3e9),
        decision(5, reason="the run ends and no seed is live"),
        FINISHED,
    ]


def sections(page: str) -> dict[str, str]:
    """What stands below each heading, by the heading."""
    told: dict[str, str] = {}
    title = ""
    for line in page.splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
            assert title not in told, title
        told[title] = told.get(title, "") + line + "\n"
    return told


def under(page: str, start: str) -> str:
    """The one section whose heading begins so."""
    found = [text for title, text in sections(page).items() if title.startswith(start)]
    assert len(found) == 1, (start, list(sections(page)))
    return found[0]


def row(text: str, start: str) -> list[str]:
    """Cells of the first row of a table that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def run_of(*events: Event) -> str:
    """The page about a run of these events."""
    return explanation([STARTED, *events])
