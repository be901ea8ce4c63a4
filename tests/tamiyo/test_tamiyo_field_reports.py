"""Which adaptations are reported on, when, and what is said about them."""

import math

import pytest
from reported_run import ReportedRun, S, alive

from esper_lightning.leyline import (
    CommandKind,
    FieldReport,
    InvalidArgument,
    Outcome,
    RiskLevel,
    RunEnded,
    RunStarted,
)
from esper_lightning.nissa.journal import JournalWriter, read_journal
from esper_lightning.tamiyo.field_reports import FieldReports
from esper_lightning.tamiyo.field_reports.windows import KEPT

K = CommandKind


def started(**options) -> ReportedRun:
    """Five epochs of a flat curve."""
    return ReportedRun(**options).epochs(0, 1, 2, 3, 4)


def span(report: FieldReport) -> tuple[int, int]:
    return report.first_epoch, report.last_epoch


# -- windows --------------------------------------------------------------------------------------


def test_a_seed_that_acts_at_once_is_observed_from_the_next_epoch():
    run = started().plant(4, direct=True).epochs(5, 6)
    assert run.found == []
    run.epochs(7, value=0.4).epochs(8, 9)
    assert run.only() == FieldReport(
        id="run/4/heuristic/0/report",
        run_id="run",
        command_id="run/4/heuristic/0",
        slot="a",
        blueprint="around",
        kind=K.GERMINATE,
        first_epoch=5,
        last_epoch=7,
        outcome=Outcome.SUCCESS,
        deltas={"val/loss": pytest.approx(-0.2)},
        policy="heuristic",
        reason="val/loss 0.8, it was heading for 1: 20.00% better; noise 0.10%",
    )


def test_a_seed_that_is_raised_first_is_observed_from_when_it_acts():
    run = started().plant(4, direct=False).move(5, S.TRAINING, S.BLENDING, where="b")
    run.epochs(5, 6, 7, 8, 9).move(10, S.TRAINING, S.BLENDING).epochs(10, value=9.0)
    run.move(11, S.BLENDING, S.SHADOWING, S.PROBATIONARY).epochs(11, 12, 13, value=0.5)
    assert span(run.only()) == (11, 13)
    assert run.only().deltas == {"val/loss": pytest.approx(-0.5)}


@pytest.mark.parametrize(
    "kind", [K.FOSSILIZE, K.CULL, K.PRUNE, K.PAUSE, K.RESUME, K.EMERGENCY], ids=lambda kind: kind
)
def test_other_commands_are_observed_from_the_next_epoch(kind):
    run = started().decide(4, kind, policy_version=7).epochs(5, 6, 7, value=2.0)
    report = run.only()
    assert (report.kind, span(report), report.policy_version) == (kind, (5, 7), 7)
    assert report.outcome is Outcome.REGRESSION


def test_the_window_is_as_long_as_it_is_asked_to_be():
    run = started(window=1).plant(4).epochs(5)
    assert span(run.only()) == (5, 5)
    for window in (0, 1.5, True):
        with pytest.raises(InvalidArgument, match="window of field reports"):
            FieldReports(window)


def test_what_changed_nothing_has_no_report():
    run = started().decide(4, K.NOOP, "").decide(4, K.CULL, refused="no")
    run.decide(4, K.ADVANCE, number=1).move(4, S.CULLED, S.EMBARGOED, where="b")
    run.decide(4, K.ADVANCE, number=2).epochs(5, 6, 7).ask("finished")
    assert run.found == []


def test_an_advance_that_moved_a_slot_has_one():
    run = started().decide(4, K.ADVANCE).move(4, S.TRAINING, S.BLENDING).epochs(5, 6, 7)
    assert (run.only().kind, span(run.only())) == (K.ADVANCE, (5, 7))


def test_a_boundary_that_is_told_twice_counts_once():
    run = started().plant(4).epoch(5).epoch(5).ask().epochs(6)
    assert run.found == []
    assert span(run.epochs(7).only()) == (5, 7)


# -- what ends a window ---------------------------------------------------------------------------


def test_a_seed_that_goes_before_it_acted_has_no_outcome():
    run = started().plant(4, direct=False).epochs(5, 6)
    run.move(7, S.TRAINING, S.CULLED, reason="G1 failed").epochs(7)
    report = run.only()
    assert (report.outcome, span(report), report.deltas) == (Outcome.ABORTED, (7, 7), {})
    assert report.reason == "culled before it acted on the host: G1 failed"


def test_a_seed_that_goes_within_its_window_has_none_but_what_was_seen_is_told():
    run = started().plant(4).epochs(5, value=3.0)
    run.move(6, S.PROBATIONARY, S.CULLED, reason="too bad").epochs(6, value=2.0)
    report = run.only()
    assert (report.outcome, span(report)) == (Outcome.ABORTED, (5, 6))
    assert (report.reason, report.deltas) == ("culled: too bad", {"val/loss": 1.5})


def test_a_seed_that_goes_when_its_window_is_over_has_an_outcome():
    run = started().plant(4).epochs(5, 6).epoch(7, 3.0)
    run.decide(7, K.CULL).move(7, S.PROBATIONARY, S.CULLED).ask()
    assert run.only().outcome is Outcome.REGRESSION


def test_a_fossil_that_is_pruned_within_its_window_has_none():
    run = started().decide(4, K.FOSSILIZE).move(4, S.PROBATIONARY, S.FOSSILIZED).epochs(5)
    run.move(6, S.FOSSILIZED, S.CULLED, reason="it hurts").epochs(6)
    assert (run.only().outcome, run.only().reason) == (Outcome.ABORTED, "pruned: it hurts")


def test_what_becomes_of_a_later_seed_of_the_slot_is_not_of_the_fossil():
    run = started().decide(4, K.FOSSILIZE).move(4, S.PROBATIONARY, S.FOSSILIZED, S.DORMANT)
    run.plant(5).epochs(5).move(6, S.PROBATIONARY, S.CULLED).epochs(6, 7)
    assert {report.kind: report.outcome for report in run.found} == {
        K.GERMINATE: Outcome.ABORTED,
        K.FOSSILIZE: Outcome.NEUTRAL,
    }


def test_the_end_of_the_run_cuts_windows():
    run = started().plant(4).epochs(5, value=0.5).decide(5, K.PAUSE, "b").ask("finished")
    planted, paused = run.found
    assert (planted.outcome, span(planted)) == (Outcome.SUCCESS, (5, 5))
    assert planted.reason.endswith("; the window was cut to 1 of 3 epochs: the run ended")
    assert (paused.outcome, span(paused)) == (Outcome.ABORTED, (5, 5))
    assert paused.reason == "nothing was observed: the run ended"
    assert run.ask("finished").found == [planted, paused]


def test_so_does_its_failure_and_a_journal_that_is_read_to_its_end():
    run = started().plant(4)
    run.tell(RunEnded(run_id="run", epoch=5, step=5, outcome="failed: no memory")).ask()
    assert run.only().reason == "nothing was observed: the run failed: no memory"


# -- rollbacks ------------------------------------------------------------------------------------


def test_epochs_that_were_undone_do_not_count():
    run = started().plant(4).epochs(5, value=0.5).intervene(6, restored=5).epochs(7, 8, value=0.5)
    report = run.only()
    assert (report.outcome, span(report)) == (Outcome.SUCCESS, (5, 8))
    assert report.deltas == {"val/loss": pytest.approx(-0.5)}
    assert report.mitigations == ("epoch 6, governor: severe: boom; back to the end of epoch 5",)


def test_epochs_that_were_observed_and_then_undone_do_not_count():
    run = started().plant(4).epochs(5, 6, value=99.0).intervene(7, restored=4)
    run.epochs(8, 9, 10, value=0.5)
    assert (run.only().outcome, span(run.only())) == (Outcome.SUCCESS, (8, 10))


def test_neither_do_they_in_the_history():
    run = started().epochs(5, 6, value=99.0).intervene(7, restored=4)
    run.epochs(8).decide(8, K.PAUSE).epochs(9, 10, 11)
    assert (run.only().outcome, run.only().deltas) == (Outcome.NEUTRAL, {"val/loss": 0.0})


def test_an_adaptation_that_was_undone_has_no_outcome():
    run = started().plant(4).epochs(5).intervene(6, restored=3).epochs(7)
    report = run.only()
    assert (report.outcome, span(report), report.deltas) == (Outcome.ABORTED, (6, 6), {})
    assert report.reason == (
        "undone at the end of epoch 6: severe: boom; back to the end of epoch 3"
    )


def test_a_seed_that_acted_only_in_what_was_undone_waits_again():
    run = started().plant(4, direct=False).move(6, S.TRAINING, S.BLENDING).epochs(5, 6)
    run.intervene(7, restored=5).epochs(8, 9, 10, 11)
    assert run.found == []
    run.move(12, S.TRAINING, S.BLENDING).epochs(12, 13, 14, 15)
    assert span(run.only()) == (13, 15)


def test_a_rollback_that_a_policy_asked_for_is_observed_and_undoes_the_others():
    run = started().plant(4).epochs(5, 6).epoch(7, 9.0)
    run.decide(7, K.ROLLBACK, "").intervene(7, restored=3).ask().epochs(8, 9, 10)
    planted, rollback = run.found
    assert (planted.kind, planted.outcome) == (K.GERMINATE, Outcome.ABORTED)
    assert (rollback.kind, span(rollback), rollback.slot) == (K.ROLLBACK, (8, 10), "")
    assert (rollback.outcome, rollback.deltas) == (Outcome.NEUTRAL, {"val/loss": 0.0})
    assert rollback.mitigations == ()


def test_a_rollback_outlasts_another_to_the_same_epoch():
    run = started().epochs(5, 6).decide(6, K.ROLLBACK, "").intervene(6, restored=3).ask()
    run.intervene(7, restored=3).epochs(8, 9, 10)
    assert (run.only().outcome, span(run.only())) == (Outcome.NEUTRAL, (8, 10))


def test_a_rollback_at_the_end_of_a_window_opens_it_again():
    run = started().plant(4).epochs(5, 6).epoch(7, 9.0)
    run.decide(7, K.ROLLBACK, "").intervene(7, restored=6).ask()
    assert run.found == []
    assert span(run.epochs(8).only()) == (5, 8)
    assert run.only().deltas == {"val/loss": 0.0}


def test_what_the_governor_does_after_a_rollback_outlasts_another_to_the_same_epoch():
    run = started().intervene(5, restored=4).decide(5, K.EMERGENCY, by="governor")
    run.intervene(6, restored=4).epochs(7, 8, 9)
    report = run.only()
    assert (report.policy, report.outcome, span(report)) == ("governor", Outcome.NEUTRAL, (7, 9))
    run.decide(9, K.EMERGENCY, by="governor").intervene(10, restored=8).ask()
    assert run.found[1].outcome is Outcome.ABORTED


# -- what is said ---------------------------------------------------------------------------------


def test_metrics_of_validation_have_deltas_and_others_have_none():
    """What is missing to an accuracy of 1 falls as 0.8 / t."""
    run = ReportedRun()
    for number in range(4):
        run.epoch(number, 1.0, acc=1 - 0.8 / (number + 1), f1=math.nan, late=math.inf)
    run.plant(3)
    for number in range(4, 7):
        run.epoch(number, 1.5, acc=0.9 - 0.8 / (number + 1), f1=0.5)
    deltas = run.ask().only().deltas
    assert deltas == {"val/loss": pytest.approx(0.5), "val/acc": pytest.approx(-0.1)}


@pytest.mark.parametrize(
    ("kind", "cohort", "outcome"),
    [
        (K.GERMINATE, 4, Outcome.NEUTRAL),
        (K.GERMINATE, 6, Outcome.SUCCESS),
        (K.PAUSE, 4, Outcome.SUCCESS),
    ],
    ids=["its own", "of a later seed", "of what adds nothing"],
)
def test_what_adds_must_pay_the_rent_of_its_own_seed(kind, cohort, outcome):
    run = started().decide(4, kind).move(4, S.GERMINATED, S.PROBATIONARY)
    for number in (5, 6, 7):
        rent = None if number == 5 else 0.3
        run.epoch(number, 0.8, alive(cohort=cohort, rent=rent)).ask()
    assert run.only().outcome is outcome
    assert ("rent 30.00%" in run.only().reason) == (outcome is Outcome.NEUTRAL)


def test_windows_that_overlap_name_each_other():
    run = started().plant(4, "a").plant(4, "b", number=1).epochs(5, 6)
    run.decide(6, K.PAUSE, "c").epochs(7, 8, 9)
    a, b, c = run.found
    assert a.reason.endswith("; shared with GERMINATE b around, PAUSE c")
    assert b.reason.endswith("; shared with GERMINATE a around, PAUSE c")
    assert c.reason.endswith("; shared with GERMINATE a around, GERMINATE b around")


def test_they_do_so_where_a_boundary_is_told_again_after_one_was_reported_on():
    run = started().plant(4).epochs(5, 6).decide(6, K.PAUSE, "b").epochs(7).epoch(7).epochs(8, 9)
    assert run.found[1].reason.endswith("; shared with GERMINATE a around")


def test_windows_that_follow_each_other_do_not():
    run = started().plant(4).epochs(5, 6).epoch(7).decide(7, K.FOSSILIZE).ask().epochs(8, 9, 10)
    assert [report.kind for report in run.found] == [K.GERMINATE, K.FOSSILIZE]
    assert not any("shared" in report.reason for report in run.found)


def test_what_was_done_meanwhile_is_told():
    run = started().plant(4).intervene(5).epoch(5)
    run.decide(5, K.PAUSE, risk=RiskLevel.RED, reason="loss rises")
    run.decide(5, K.PAUSE, "b", number=1, risk=RiskLevel.RED)
    run.decide(5, K.RESUME, number=2, risk=RiskLevel.RED)
    run.decide(5, K.CULL, number=3, risk=RiskLevel.YELLOW).ask().epochs(6, 7)
    assert run.only().mitigations == (
        "epoch 5, governor: minor: boom",
        "epoch 5, pause at risk RED: loss rises",
    )


@pytest.mark.parametrize("missing", [None, math.nan])
def test_what_was_not_measured_is_not_judged(missing):
    run = ReportedRun().epochs(0, 1, 2, value=missing).plant(2).epochs(3, 4, 5)
    assert (run.only().outcome, run.only().deltas) == (Outcome.NEUTRAL, {})
    assert run.only().reason == "nothing to compare with: val/loss was not measured before"
    run = started().plant(4).epochs(5, 6, 7, value=missing)
    assert (run.only().outcome, run.only().deltas) == (Outcome.NEUTRAL, {})
    assert run.only().reason == "val/loss was not measured in the window"


def test_an_objective_that_runs_away_is_a_regression():
    run = started().plant(4).epochs(5, 6, 7, value=math.inf)
    assert run.only().outcome is Outcome.REGRESSION
    assert math.isfinite(run.only().deltas["val/loss"])


# -- resuming -------------------------------------------------------------------------------------


def eventful(*, forgets: bool) -> ReportedRun:
    run = started(forgets=forgets).plant(4, "a").plant(4, "b", number=1, direct=False)
    run.epochs(5, value=0.9).intervene(6, restored=5)
    run.decide(6, K.EMERGENCY, "b", by="governor").move(6, S.TRAINING, S.CULLED, where="b").ask()
    run.epoch(7, 0.8, alive("a", cohort=4, rent=0.01), acc=0.5)
    run.decide(7, K.ADVANCE, "c").move(7, S.TRAINING, S.BLENDING, where="c").ask()
    run.epoch(8, 0.8).decide(8, K.FOSSILIZE, risk=RiskLevel.GREEN)
    run.move(8, S.PROBATIONARY, S.FOSSILIZED).ask().epochs(9, 10, value=0.7)
    return run.epoch(11, 9.0).decide(11, K.ROLLBACK, "").intervene(11, restored=10).ask("finished")


def test_windows_survive_resuming_at_any_event():
    expected = eventful(forgets=False).found
    assert len(expected) == 6
    assert eventful(forgets=True).found == expected


def test_epochs_that_are_trained_again_give_the_same_reports():
    run = started().plant(4).epochs(5)
    saved = run.reports.state_dict()
    first = run.epochs(6, 7).only()
    run.reports.load_state_dict(saved)
    run.tell(run.events[0]).epochs(6, 7)
    assert run.found == [first, first]


def test_a_command_that_is_told_twice_has_one_report():
    run = started().plant(4).plant(4).epochs(5, 6, 7)
    assert span(run.only()) == (5, 7)


def test_a_run_that_goes_on_after_its_end_is_reported_on():
    run = started().tell(RunEnded(run_id="run", epoch=5, step=5, outcome="finished")).ask()
    run.tell(run.events[0]).epochs(5).plant(5).epochs(6)
    assert run.found == []
    assert span(run.epochs(7, 8).only()) == (6, 8)


def test_another_run_has_windows_of_its_own():
    run = started().plant(4)
    run.tell(RunStarted(run_id="2", slots=(), host_parameters=9, max_epochs=9, versions={}))
    assert run.ask("finished").found == []


@pytest.mark.parametrize(
    "change", [{"epochs": 3}, {"windows": [{"kind": "germinate"}]}, {"more": 1}, {"mode": None}]
)
def test_what_is_no_saved_state_is_refused_and_changes_nothing(change):
    run = started().plant(4)
    saved = run.reports.state_dict()
    with pytest.raises(InvalidArgument, match="not a saved state of field reports"):
        run.reports.load_state_dict(saved | change)
    assert run.reports.state_dict() == saved


def test_no_more_is_kept_than_a_forecast_may_need():
    run = ReportedRun().epochs(*range(3 * KEPT))
    assert len(run.reports.state_dict()["epochs"]) == KEPT
    run.plant(3 * KEPT - 1).epochs(3 * KEPT, 3 * KEPT + 1)
    assert len(run.reports.state_dict()["epochs"]) == KEPT + 2
    assert run.epochs(3 * KEPT + 2, value=0.5).only().outcome is Outcome.SUCCESS


# -- on their way ---------------------------------------------------------------------------------


def test_a_report_that_is_read_back_from_a_journal_is_the_one_that_was_written(tmp_path):
    run = eventful(forgets=False)
    with JournalWriter(tmp_path / "events.jsonl") as journal:
        journal.write(*run.events, *run.found)
    assert read_journal(tmp_path / "events.jsonl") == run.events + run.found


def test_a_journal_makes_the_same_reports_whenever_it_is_asked():
    run = eventful(forgets=False)
    again = FieldReports()
    for event in run.events:
        again.observe(event)
    found = {report.id: report for report in again.due(ending="finished")}
    assert found == {report.id: report for report in run.found}
