"""Records become metrics."""

from collections import Counter
from typing import Any

import pytest
from synthetic_run import synthetic_run

from esper_lightning.leyline import (
    AdaptationCommand,
    AlarmLevel,
    CommandKind,
    Decision,
    Event,
    Intervention,
    InvalidArgument,
    Objective,
    PolicyChanged,
    PolicyStep,
    Raised,
    Risk,
    RiskLevel,
    RunEnded,
    RunStarted,
    SeedStage,
    SeedState,
    Services,
    Severity,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.metrics import NissaIngestor, Series
from esper_lightning.nissa.metrics.registry import MetricsRegistry


def made() -> NissaIngestor:
    return NissaIngestor(MetricsRegistry())


def told(ingestor: NissaIngestor, name: str, **labels: str) -> float | None:
    wanted = labels | {"run": ingestor.registry.run, "rank": "0"}
    return ingestor.registry.samples().get(Series(name, tuple(sorted(wanted.items()))))


def state(*slots: SeedState, run_id: str = "r1", **changes: Any) -> SystemState:
    known: dict[str, Any] = {
        "run_id": run_id,
        "epoch": 0,
        "max_epochs": 5,
        "global_step": 10,
        "steps_per_epoch": 10,
        "objective": Objective(name="val/loss", value=0.5),
        "metrics": {},
        "slots": slots,
        "host_parameters": 100,
        "num_parameters": 120,
    }
    return SystemState(**(known | changes))


def seed(violations: int | None, *, cohort: int = 1, **changes: Any) -> SeedState:
    known: dict[str, Any] = {
        "slot": "a",
        "stage": SeedStage.TRAINING,
        "seed_age": 1,
        "alpha": 0.5,
        "cohort": cohort,
        "isolation_violations": violations,
    }
    return SeedState(**(known | changes))


@pytest.mark.parametrize("number", range(4))
def test_a_run_is_counted_as_its_records_tell(number: int) -> None:
    events = synthetic_run(("features.1", "features.2"), 15, seed=number)
    ingestor = made()
    for event in events:
        ingestor.take(event)
    kinds = Counter(type(event) for event in events)
    assert told(ingestor, "tolaria_epochs_total") == kinds[SystemState]
    moves = Counter(e.after.name.lower() for e in events if isinstance(e, StageChanged))
    for stage, count in moves.items():
        assert told(ingestor, "kasmina_stage_changes_total", stage=stage) == count
    decided = Counter(e.command.kind.value for e in events if isinstance(e, Decision))
    for kind, count in decided.items():
        assert told(ingestor, "tamiyo_decisions_total", kind=kind) == count
    last = [event for event in events if isinstance(event, SystemState)][-1]
    assert told(ingestor, "kasmina_parameters") == last.num_parameters
    stages = Counter(slot.stage.name.lower() for slot in last.slots)
    for stage in SeedStage:
        name = stage.name.lower()
        assert told(ingestor, "kasmina_slots", stage=name) == stages[name]
    assert told(ingestor, "tolaria_run_active") == 0
    assert told(ingestor, "tolaria_runs_ended_total", outcome="finished") == 1
    events_told = sum(
        value
        for series, value in ingestor.registry.samples().items()
        if series.name == "nissa_events_total"
    )
    assert events_told == len(events)


def test_isolation_violations_are_those_of_all_seeds() -> None:
    ingestor = made()
    for violations, cohort in (
        (None, 1),
        (0, 1),
        (2, 1),
        (2, 1),
        (3, 1),
        (1, 4),
        (1, 4),
        (None, 4),
        (1, 5),  # another seed, as often as the one before it
    ):
        ingestor.take(state(seed(violations, cohort=cohort)))
    assert told(ingestor, "kasmina_isolation_violations_total") == 5


def test_what_was_not_measured_is_not_told() -> None:
    ingestor = made()
    ingestor.take(state(objective=Objective(name="val/loss")))
    names = {series.name for series in ingestor.registry.samples()}
    absent = {
        "tolaria_objective",
        "tolaria_learning_rate",
        "oona_queue_depth_messages",
        "oona_breaker_open",
        "tamiyo_risk_level",
    }
    assert not names & absent


def test_a_seed_that_is_gone_has_no_alpha() -> None:
    ingestor = made()
    ingestor.take(state(seed(None)))
    assert told(ingestor, "kasmina_seed_alpha_ratio", slot="a") == 0.5
    ingestor.take(state(SeedState(slot="a", stage=SeedStage.DORMANT)))
    assert told(ingestor, "kasmina_seed_alpha_ratio", slot="a") is None


def test_slots_beyond_the_bound_have_no_series_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esper_lightning.nissa.metrics.names.MAX_SLOTS", 3)
    ingestor = made()
    ingestor.take(state(*(seed(None, slot=f"s{number}") for number in range(10))))
    names = [each.name for each in ingestor.registry.samples()]
    assert names.count("kasmina_seed_alpha_ratio") == 3
    assert told(ingestor, "kasmina_slots", stage="training") == 10


def test_services_are_told_as_they_stand() -> None:
    ingestor = made()
    ingestor.take(state())
    ingestor.take_services(Services(bus="open", waiting=7, dropped=3))
    ingestor.take_services(Services(bus="closed", waiting=2, dropped=5))
    assert told(ingestor, "oona_queue_depth_messages", queue="outbox") == 2
    assert told(ingestor, "oona_dropped_messages_total") == 5
    assert told(ingestor, "oona_breaker_open") == 0


def test_figures_that_only_rise_are_counted_once() -> None:
    ingestor = made()
    ingestor.take(state())
    for put in (5, 5, 9):
        ingestor.take_published(put)
    for retries in (1, 1, 3):
        ingestor.take_compilations(
            {"compiled": 2}, retries=retries, fallbacks=retries, seconds=0.5 * retries
        )
    assert told(ingestor, "oona_published_messages_total") == 9
    assert told(ingestor, "tezzeret_compile_retries_total") == 3
    assert told(ingestor, "tezzeret_compile_seconds_total") == 1.5
    assert told(ingestor, "tezzeret_branches", way="compiled") == 2


def test_what_goes_wrong_is_counted() -> None:
    ingestor = made()
    command = AdaptationCommand(id="1", run_id="r1", kind=CommandKind.NOOP)
    records: list[Event | Raised] = [
        state(),
        Intervention(run_id="r1", epoch=1, step=2, level=AlarmLevel.MINOR, alarm="nan"),
        Intervention(
            run_id="r1", epoch=1, step=2, level=AlarmLevel.SEVERE, alarm="nan", restored=0
        ),
        Decision(
            run_id="r1",
            epoch=1,
            policy="p",
            command=command,
            refused="no",
            policy_version=4,
            risk=Risk(level=RiskLevel.ORANGE, conservative=True),
        ),
        PolicyChanged(
            run_id="r1",
            epoch=1,
            policy="p",
            step=PolicyStep.REFUSED,
            before=4,
            after=4,
            offered=5,
        ),
        Raised(
            run_id="reader", name="oona_forged_message", severity=Severity.CRITICAL, text="forged"
        ),
        RunEnded(run_id="r1", epoch=1, step=2, outcome="failed: ValueError: no"),
    ]
    for record in records:
        ingestor.take(record)
    assert told(ingestor, "tolaria_interventions_total", level="severe") == 1
    assert told(ingestor, "tolaria_rollbacks_total") == 1
    assert told(ingestor, "tamiyo_refused_commands_total") == 1
    assert told(ingestor, "tamiyo_risk_level") == RiskLevel.ORANGE
    assert told(ingestor, "tamiyo_conservative_mode") == 1
    assert told(ingestor, "tamiyo_policy_changes_total", change="refused") == 1
    assert told(ingestor, "oona_rejected_signatures_total") == 1
    assert told(ingestor, "tolaria_runs_ended_total", outcome="failed") == 1


def test_flops_never_fall() -> None:
    ingestor = made()
    for total in (100.0, 250.0, 200.0, 300.0):
        ingestor.take(state(total_flops=total))
    assert told(ingestor, "tolaria_training_flops_total") == 300.0


def test_another_run_begins_anew() -> None:
    ingestor = made()
    for run_id in ("r1", "r2"):
        started = RunStarted(
            run_id=run_id, slots=("a",), host_parameters=5, max_epochs=None, versions={}
        )
        ingestor.take(started)
        ingestor.take(state(seed(2), run_id=run_id, total_flops=7.0))
    assert told(ingestor, "tolaria_epochs_total") == 1
    assert told(ingestor, "kasmina_isolation_violations_total") == 2
    assert told(ingestor, "tolaria_training_flops_total") == 7.0


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no record of a run"):
        made().take(seed(None))  # type: ignore[arg-type]
