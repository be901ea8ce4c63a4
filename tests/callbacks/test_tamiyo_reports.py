"""What a run records of its controller: risk on every decision, and what each one led to."""

from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import Saves
from runs import Script, digits_run, listen, plant, tell

from esper_lightning.callbacks import Journal, Kasmina, Tamiyo
from esper_lightning.leyline import (
    CommandKind,
    Decision,
    Event,
    FieldReport,
    Outcome,
    RiskLevel,
    RunEnded,
    Signal,
    SystemState,
)
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal
from esper_lightning.tamiyo import Choice, GrowthBudget, Policy
from esper_lightning.tamiyo.policy import wait


class Told(Policy):
    """Plants at the second boundary, keeps at the fifth; and waits in words."""

    name = "told"

    def decide(self, state: SystemState) -> list[Choice]:
        if state.epoch == 1:
            return [plant()]
        if state.epoch == 4 and CommandKind.FOSSILIZE in state.slot("features.1").legal:
            return [tell(CommandKind.FOSSILIZE)]
        return wait("nothing to do")


def guarded_run(policy: Policy, **options: Any) -> tuple[list[Event], Any]:
    """A run whose controller is watched, as by default."""
    grower = options.pop("grower", None) or Tamiyo(policy=policy)
    _, kasmina, trainer = digits_run(policy, grower=grower, **options)
    assert isinstance(kasmina, Kasmina)
    return listen(kasmina), trainer


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_every_decision_carries_its_risk() -> None:
    events, _ = guarded_run(Told(), epochs=6)
    decisions = of(Decision, events)
    assert len(decisions) == 6
    assert all(each.risk is not None and each.risk.reason for each in decisions)
    assert {each.risk.level for each in decisions} == {RiskLevel.GREEN}
    assert all(each.risk.signals for each in decisions[2:])


def test_what_the_policy_may_grow_is_what_the_risk_goes_by() -> None:
    budget = GrowthBudget(max_growth=0.001)
    for limits in (None, budget):
        policy = Told()
        policy.budget = limits
        events, _ = guarded_run(policy, epochs=4)
        scores = [each.risk.signals.get(Signal.RESOURCES) for each in of(Decision, events)]
        if limits is None:
            assert scores == [None] * 4
        else:
            assert scores[0] == 0.0
            assert scores[-1] > 0.5, "the seed is larger than what it may grow"


@pytest.mark.parametrize("deterministic", [True, False])
def test_latency_is_told_where_the_run_need_not_repeat(deterministic: bool) -> None:
    events, _ = guarded_run(Told(), epochs=6, deterministic=deterministic)
    told = [Signal.LATENCY in each.risk.signals for each in of(Decision, events)]
    assert any(told) is not deterministic


def test_each_adaptation_has_one_report_before_the_run_ends() -> None:
    events, _ = guarded_run(Told(), epochs=8)
    reports = of(FieldReport, events)
    carried_out = [
        each.command.id
        for each in of(Decision, events)
        if each.command.kind is not CommandKind.NOOP and not each.refused
    ]
    assert sorted(each.command_id for each in reports) == sorted(carried_out)
    assert len({each.id for each in reports}) == len(reports) == 2
    assert isinstance(events[-1], RunEnded)
    planting = next(each for each in reports if each.kind is CommandKind.GERMINATE)
    assert planting.outcome in (Outcome.SUCCESS, Outcome.NEUTRAL, Outcome.REGRESSION)
    assert planting.last_epoch - planting.first_epoch == 2
    assert "val/loss" in planting.deltas
    assert not any(name.startswith("test") for name in planting.deltas)


def test_a_window_that_is_open_at_the_end_is_cut() -> None:
    events, _ = guarded_run(Told(), epochs=4)
    (report,) = of(FieldReport, events)
    assert events.index(report) < len(events) - 1
    assert "ended" in report.reason or "finished" in report.reason


def test_without_risk_every_choice_passes_and_none_is_recorded() -> None:
    policy = Script({1: [plant()]})
    events, _ = guarded_run(policy, epochs=3, grower=Tamiyo(policy=policy, risk=False))
    assert [each.risk for each in of(Decision, events)] == [None]


def test_a_resumed_run_assesses_and_reports_as_the_uninterrupted_one(tmp_path: Path) -> None:
    def run(folder: Path, epochs: int, ckpt: str | None = None) -> list[Event]:
        guarded_run(
            Told(),
            epochs=epochs,
            ckpt_path=ckpt,
            callbacks=[Journal(dirpath=str(folder)), *([] if ckpt else [Saves(folder)])],
            enable_checkpointing=not ckpt,
            default_root_dir=folder,
        )
        return read_journal(folder / JOURNAL_NAME)

    whole = run(tmp_path / "whole", 8)
    first = tmp_path / "parts"
    run(first, 8)
    again = run(tmp_path / "again", 8, ckpt=str(first / "2-end.ckpt"))

    def late(events: list[Event]) -> list[Any]:
        return [
            (each.epoch, each.command.kind, each.risk)
            for each in of(Decision, events)
            if each.epoch > 2
        ] + [(each.id, each.outcome, each.deltas) for each in of(FieldReport, events)]

    def renamed(events: list[Event], run_id: str) -> list[Any]:
        return [tuple(str(part).replace(run_id, "run") for part in each) for each in late(events)]

    assert renamed(again, again[0].run_id) == renamed(whole, whole[0].run_id)
    assert of(FieldReport, again)
