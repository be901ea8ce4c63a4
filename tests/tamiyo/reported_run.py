"""A run that is told to field reports event by event."""

import json
from itertools import pairwise
from typing import Any

from growing_run import slot, state

from esper_lightning.leyline import (
    AdaptationCommand,
    AlarmLevel,
    CommandKind,
    Decision,
    Event,
    FieldReport,
    Intervention,
    Objective,
    Risk,
    RiskLevel,
    RunStarted,
    SeedStage,
    SeedState,
    StageChanged,
)
from esper_lightning.tamiyo.field_reports import FieldReports

S = SeedStage


class ReportedRun:
    """Events of a run as its boundaries make them, and the reports that they lead to.

    Args:
        window: of the reports.
        forgets: continue from the plain data of the state after every event.
    """

    def __init__(self, *, window: int = 3, forgets: bool = False) -> None:
        self.reports = FieldReports(window)
        self.window = window
        self.forgets = forgets
        self.events: list[Event] = []
        self.found: list[FieldReport] = []
        self.tell(
            RunStarted(run_id="run", slots=("a", "b"), host_parameters=9, max_epochs=9, versions={})
        )

    def tell(self, *events: Event) -> "ReportedRun":
        for event in events:
            self.events.append(event)
            self.reports.observe(event)
            if self.forgets:
                saved = json.loads(json.dumps(self.reports.state_dict()))
                self.reports = FieldReports(self.window)
                self.reports.load_state_dict(saved)
        return self

    def epoch(
        self, number: int, value: float | None = 1.0, *slots: SeedState, **metrics: float
    ) -> "ReportedRun":
        """A state; keywords are validation metrics beside the objective."""
        return self.tell(
            state(
                *slots,
                epoch=number,
                objective=Objective(name="val/loss", value=value),
                metrics={"train/loss": 1.0, **{f"val/{name}": v for name, v in metrics.items()}},
            )
        )

    def epochs(self, *numbers: int, value: float | None = 1.0) -> "ReportedRun":
        """States, and what has become due after each."""
        for number in numbers:
            self.epoch(number, value).ask()
        return self

    def decide(
        self,
        epoch: int,
        kind: CommandKind,
        where: str = "a",
        *,
        number: int = 0,
        by: str = "heuristic",
        risk: RiskLevel | None = None,
        reason: str = "told to",
        **changes: Any,
    ) -> "ReportedRun":
        command = AdaptationCommand(
            id=f"run/{epoch}/{by}/{number}",
            run_id="run",
            kind=kind,
            slot=where,
            blueprint="around" if kind is CommandKind.GERMINATE else "",
            reason=reason,
        )
        return self.tell(
            Decision(
                run_id="run",
                epoch=epoch,
                policy=by,
                command=command,
                risk=None if risk is None else Risk(level=risk),
                **changes,
            )
        )

    def move(
        self, epoch: int, *stages: SeedStage, where: str = "a", reason: str = "so it goes"
    ) -> "ReportedRun":
        for before, after in pairwise(stages):
            self.tell(
                StageChanged(
                    run_id="run",
                    epoch=epoch,
                    step=epoch,
                    slot=where,
                    before=before,
                    after=after,
                    reason=reason,
                )
            )
        return self

    def plant(
        self, epoch: int, where: str = "a", *, number: int = 0, direct: bool = True
    ) -> "ReportedRun":
        """A seed, inserted directly or to be raised beside its host first."""
        self.decide(epoch, CommandKind.GERMINATE, where, number=number)
        last = S.PROBATIONARY if direct else S.TRAINING
        return self.move(epoch, S.DORMANT, S.GERMINATED, last, where=where)

    def intervene(self, epoch: int, restored: int | None = None) -> "ReportedRun":
        level = AlarmLevel.MINOR if restored is None else AlarmLevel.SEVERE
        return self.tell(
            Intervention(
                run_id="run", epoch=epoch, step=epoch, level=level, alarm="boom", restored=restored
            )
        )

    def ask(self, ending: str = "") -> "ReportedRun":
        self.found += self.reports.due(ending=ending)
        return self

    def only(self) -> FieldReport:
        (report,) = self.found
        return report


def alive(where: str = "a", *, cohort: int, rent: float | None) -> SeedState:
    return slot(where, S.PROBATIONARY, cohort=cohort, rent=rent)
