from pathlib import Path

import pytest
from msgspec.structs import replace
from synthetic_run import synthetic_run
from told_run import (
    FINISHED,
    LIVE,
    RUN_ID,
    SLOT,
    decision,
    grown_run,
    intervened,
    moved,
    planted,
    reported,
    row,
    run_of,
    sections,
    slot,
    state,
    under,
)

from esper_lightning.leyline import (
    CommandKind,
    Decision,
    Outcome,
    PolicyChanged,
    PolicyStep,
    Risk,
    RiskLevel,
    RunSummary,
    SeedStage,
    Signal,
)
from esper_lightning.nissa.__main__ import main
from esper_lightning.nissa.explanation import explanation

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs/results/explained/events.jsonl"
PAGE = ROOT / "docs/explained-run.md"
SUMMARY = RunSummary(
    run_id=RUN_ID,
    outcome="finished",
    seed=7,
    host="CNN",
    policy="heuristic",
    incubation="direct",
    epochs=6,
    steps=60,
    validation={},
    test={"test/acc": 0.983},
    host_parameters=968,
    parameters=3308,
    host_flops_per_sample=44.3e3,
    flops_per_sample=404e3,
    host_training_flops=1.1e9,
    training_flops=3.3e9,
    wall_s=15.2,
    grown=(),
    culled=(),
    versions={},
)


# The whole page


def test_the_page_in_the_documents_is_what_the_command_makes_of_its_record(tmp_path):
    assert main(["explain", str(RECORD), "--out", str(tmp_path / "page.md")]) == 0
    made = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert made == PAGE.read_text(encoding="utf-8"), (
        "run python -m esper_lightning.nissa explain docs/results/explained "
        "--out docs/explained-run.md"
    )


def test_the_beginning_tells_what_was_run_and_how_it_ended():
    page = explanation(grown_run(), SUMMARY)
    assert page.startswith(f"# Run `{RUN_ID}`, decision by decision\n")
    assert "The run finished after 6 of 6 epochs." in page
    assert "`val/loss` went from 1 (epoch 1) to 0.200, its best value." in page
    assert "1 seed planted, 1 permanent in the end, 0 culled: from 968 to 3,308" in page
    assert row(page, "host ") == ["host", "`CNN`"]
    assert row(page, "slots") == ["slots", f"`{SLOT}`"]
    assert row(page, "random seed") == ["random seed of the run", "7"]


def test_the_curve_has_a_column_and_a_row_for_each_epoch():
    curve = under(explanation(grown_run()), "The curve")
    assert "val/loss    █▆▄▄▁▁  1 → 0.200" in curve
    assert "parameters  ▁▁████  968 → 3,308" in curve
    assert "decisions   .P..F.\n" in curve
    assert row(curve, "2 ") == ["2", "0.800", "60 %", "968", "", "planted 1"]
    assert row(curve, "5 ") == ["5", "0.250", "87.5 %", "3,308", "2.9 GFLOP", "made permanent 1"]


def test_a_boundary_tells_what_was_seen_chosen_and_what_came_of_it():
    page = explanation(grown_run())
    planting = under(page, "Epoch 2: planted in `features.2`")
    assert "`val/loss` 0.800, 20 % better than in epoch 1." in planting
    assert "Room: 1 of 1 slot free to plant in." in planting
    assert row(planting, "`features.2`") == ["`features.2`", "dormant, 2 epochs", "0.0619"]
    assert "- **Plant `parallel_conv(expansion=8)` in `features.2`**." in planting
    assert "    - Why: the curve is flat.\n" in planting
    assert "could have been given: germinate, noop." in planting
    assert "    - Then: `features.2` dormant → germinated → probationary: G0 passed.\n" in planting

    keeping = under(page, "Epoch 5: made permanent")
    assert "3,308 parameters (3.42x its host's) and trained at 404 kFLOP a sample" in keeping
    assert row(keeping, "`features.2`")[3:] == [
        "`parallel_conv(expansion=8)`, 2,340 parameters",
        "1",
        "31.8 %",
        "3.31 %",
    ]
    assert "probationary → fossilized: G4 did not pass: gain 31.8 % (at least 3.31 %) ✓" in keeping
    assert "dropped gradients not measured (at most 10 % of steps) ✗" in keeping


def test_the_end_tells_what_grew_what_it_cost_and_what_it_was_worth():
    page = explanation(grown_run(), SUMMARY)
    assert row(under(page, "What grew"), "`features.2`") == [
        *("`features.2`", "`parallel_conv(expansion=8)`", "2,340", "epoch 2", "epoch 5"),
        "G4 passed",
    ]
    assert "Nothing was culled." in page
    bill = under(page, "The bill")
    assert row(bill, "parameters") == ["parameters", "968", "3,308", "3.42x"]
    assert row(bill, "training FLOPs per")[1:] == ["44.3 kFLOP", "404 kFLOP", "9.12x"]
    assert row(bill, "training FLOPs of")[1:] == ["1.1 GFLOP", "3.3 GFLOP", "3x"]
    assert "`test/acc` 98.3 %. No decision has seen this split" in bill
    worth = under(page, "What the decisions were worth")
    assert "Decisions: waited 4, planted 1 and made permanent 1." in worth
    assert row(worth, "epoch 2")[4:7] == [
        "epochs 3 to 5",
        "success",
        "`val/acc` +1.23 points, `val/loss` -0.0521",
    ]


def test_without_a_summary_the_cost_of_the_host_alone_is_not_measured():
    bill = under(explanation(grown_run()), "The bill")
    assert row(bill, "training FLOPs of")[1:] == ["not measured", "3.3 GFLOP", ""]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("epochs", [1, 9, 120])
def test_any_run_is_told_whole_and_each_time_the_same(seed, epochs):
    slots = tuple(f"blocks.{number}" for number in range(1 + 4 * seed))
    events = synthetic_run(slots, epochs, seed=seed, metrics=("acc",) if seed % 2 else ("loss",))
    page = explanation(events)
    assert page == explanation(events)
    assert "None" not in page
    assert "nan" not in page.lower()
    told = {title.partition(":")[0]: text for title, text in sections(page).items()}
    for event in events:
        if isinstance(event, Decision):
            section = told[f"Epoch {event.epoch + 1}"]
            assert f"Plant `{event.command.blueprint}(" in section
            assert f"in `{event.command.slot}`" in section
    fossils = sum(getattr(event, "after", None) is SeedStage.FOSSILIZED for event in events)
    culls = sum(getattr(event, "after", None) is SeedStage.CULLED for event in events)
    assert under(page, "What grew").count("| `blocks.") == fossils
    assert under(page, "What was culled").count("| `blocks.") == culls
    table = under(page, "The curve").partition("| epoch |")[2]
    deeds = {event.epoch for event in events if isinstance(event, Decision)}
    assert table.count("\n| ") <= max(30, 2 + len(deeds)) + 1


def test_of_many_slots_those_under_way_and_those_that_press_are_shown():
    slots = [slot(slot=f"b.{number}", pressure=float(number)) for number in range(40)]
    slots[3] = replace(LIVE, slot="b.3")
    section = under(run_of(state(0, *slots), *planted(0)), "Epoch 1")
    shown = [line.split("|")[1].strip() for line in section.splitlines() if line[:5] == "| `b."]
    assert shown == ["`b.3`", *(f"`b.{number}`" for number in range(29, 40))]
    assert "And 28 slots at rest with less pressure." in section


# Waiting


def test_waiting_for_one_reason_is_told_once():
    page = explanation(grown_run())
    assert "### Epochs 3 to 4: waited\n" in page
    waited = under(page, "Epochs 3 to 4")
    assert "at first: a seed is live (age 1). At last: a seed is live (age 2)." in waited
    assert "`val/loss`: 0.600 → 0.500." in waited
    assert "`features.2` (`parallel_conv(expansion=8)`, probationary): gain not measured." in waited


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ({}, {}, True),
        ({"reason": "falls 3.5% an epoch"}, {"reason": "falls 1,200% an epoch"}, True),
        ({"reason": "too early"}, {"reason": "too late"}, False),
        ({"policy": "learned"}, {}, False),
        ({"risk": Risk(level=RiskLevel.GREEN)}, {"risk": Risk(level=RiskLevel.YELLOW)}, False),
        ({"risk": Risk(level=RiskLevel.GREEN)}, {"risk": Risk(level=RiskLevel.GREEN)}, True),
    ],
)
def test_boundaries_are_folded_when_they_differ_in_figures_alone(first, second, together):
    page = run_of(state(0), decision(0, **first), state(1), decision(1, **second))
    assert ("### Epochs 1 to 2: waited" in page) is together


def test_waiting_of_another_policy_says_whose_it_is():
    events = [state(0), decision(0), state(1), decision(1), state(2), decision(2, policy="other")]
    page = run_of(*events)
    assert "Waited: it is too early." in under(page, "Epochs 1 to 2")
    assert "Waited, said `other`: it is too early." in under(page, "Epoch 3")


def test_a_move_that_no_decision_explains_is_told_apart():
    culled = moved(0, SeedStage.PROBATIONARY, SeedStage.CULLED, slot="other", reason="by hand")
    section = under(run_of(state(0), *planted(0), culled), "Epoch 1: planted")
    told = section.partition("**Afterwards**, by no decision in the record:")[2]
    assert told == "\n\n- `other` probationary → culled: by hand.\n\n"


def test_what_is_the_same_of_several_slots_is_told_once():
    seeds = [replace(LIVE, slot=name) for name in ("a", "b", "c")]
    seeds[1] = replace(seeds[1], gate=None)
    over = [
        moved(0, SeedStage.FOSSILIZED, SeedStage.DORMANT, slot=each.slot, reason="free again")
        for each in seeds
    ]
    section = under(run_of(*over, state(0, *seeds), *planted(0)), "Epoch 1")
    assert "- `a`, `b` and `c` fossilized → dormant: free again.\n" in section
    assert "- `a` and `c`: G4 did not pass: gain 31.8 %" in section
    assert "- `b`: no gate was asked yet.\n" in section


def test_a_move_while_nothing_was_decided_is_told():
    gone = moved(1, SeedStage.RESETTING, SeedStage.DORMANT, blueprint="", reason="the rest is over")
    page = run_of(state(0), decision(0), gone, state(1), decision(1), state(2), decision(2))
    section = under(page, "Epoch 2: waited, while slots moved")
    assert "- `features.2` resetting → dormant: the rest is over." in section
    assert "- **Wait**: it is too early." in section
    assert under(page, "Epoch 3: waited")


def test_a_long_course_is_thinned_and_keeps_its_ends():
    events = [each for epoch in range(40) for each in (state(epoch), decision(epoch))]
    section = under(run_of(*events), "Epochs 1 to 40: waited")
    course = section.partition("`val/loss`: ")[2].partition(".\n")[0].split(" → ")
    assert len(course) == 8
    assert (course[0], course[-1]) == ("1", "0.500")


# What a decision carries


def test_a_decision_tells_its_figures():
    chosen = planted(1, log_probability=-0.7, value=0.613, policy_version=3, share=0.4)
    section = under(run_of(state(0), decision(0), state(1), *chosen), "Epoch 2")
    assert "- Probability 49.7 % (log -0.700), expected value 0.613, " in section
    assert "given 40 % of what was left of the budget, policy version 3." in section


def test_what_was_refused_says_why_and_that_nothing_changed():
    asked = decision(0, CommandKind.CULL, refused="slot 'features.2' already had a command here")
    page = run_of(state(0, LIVE), asked, decision(0, CommandKind.PAUSE))
    section = under(page, "Epoch 1: paused in `features.2`; 1 choice refused")
    assert "- **Cull `parallel_conv` in `features.2`**." in section
    assert "Refused, so nothing changed: slot 'features.2' already had a command here." in section
    assert "refused 1" in under(page, "What the decisions")


def test_to_do_no_more_is_no_wait():
    page = run_of(state(0), decision(0), state(1), *planted(1), decision(1))
    section = under(page, "Epoch 2: planted in `features.2`")
    assert "- **Do no more**: it is too early." in section
    assert "**Wait**" not in section
    assert "waited 1, planted 1" in under(page, "What the decisions").replace(" and", ",")


def test_risk_is_told_once_with_every_signal():
    risky = Risk(
        level=RiskLevel.ORANGE,
        signals={Signal.GRADIENT: 0.62, Signal.PERFORMANCE: 0.1},
        conservative=True,
        reason="gradient norm 6 times its median",
    )
    calm = Risk(level=RiskLevel.GREEN)
    page = run_of(
        *(state(0), *planted(0, risk=risky), decision(0, CommandKind.PAUSE, risk=risky)),
        *(state(1), decision(1, CommandKind.PAUSE, risk=risky)),
        *(state(2), decision(2, risk=calm)),
    )
    section = under(page, "Epoch 1")
    assert section.count("ORANGE") == 1
    assert "ORANGE (nothing may be planted, and rules judge what lives)" in section
    assert "gradient 0.620, performance 0.100, resources not measured, latency not meas" in section
    assert "gradient norm 6 times its median. Conservative mode is entered." in section
    assert "Conservative mode stays on." in under(page, "Epoch 2")
    assert "GREEN (choices pass). Conservative mode is left." in under(page, "Epoch 3")


def test_a_report_stands_under_its_decision_and_its_last_version_counts():
    first = reported("1/germinate", outcome=Outcome.ABORTED)
    events = grown_run()
    events.insert(-4, first)
    page = explanation(events)
    section = under(page, "Epoch 2")
    assert "It was a success, observed in epochs 3 to 5: `val/acc` +1.23 points and " in section
    assert "`val/loss` -0.0521 against where the curve was heading. The curve fell" in section
    assert "aborted" not in page
    assert page.count("a success") == 2


def test_a_report_without_its_decision_is_told_at_the_end():
    lost = reported("9/cull", deltas={}, outcome=Outcome.NEUTRAL, mitigations=("paused",))
    page = explanation([*grown_run()[:-1], lost, FINISHED])
    worth = under(page, "What the decisions")
    assert row(worth, "not in the record")[5:7] == ["neutral", "not measured"]
    assert "2 field reports" in worth


@pytest.mark.parametrize(
    ("step", "before", "after", "told"),
    [
        (PolicyStep.INSTALLED, 1, 2, "Version 2 of `learned` was installed, in place of version 1"),
        (PolicyStep.REFUSED, 1, 1, "Version 2 of `learned` was refused, and version 1 goes on"),
        (PolicyStep.ROLLED_BACK, 2, None, "was taken out again, and no version decides"),
    ],
)
def test_a_change_of_policy_says_which_version_decides(step, before, after, told):
    change = PolicyChanged(
        run_id=RUN_ID,
        epoch=0,
        policy="learned",
        step=step,
        before=before,
        after=after,
        offered=2,
        reason="its digest is another",
    )
    before = under(run_of(change, state(0), decision(0)), "Epoch 1: the policy was exchanged")
    assert told in before.partition("**Seen.**")[0]
    assert "its digest is another." in before
    after = under(run_of(state(0), decision(0), change), "Epoch 1: the policy was exchanged")
    assert told in after.partition("**Policy, from the next boundary on.**")[2]


# Undone epochs


def test_an_undone_epoch_is_told_with_what_went_with_it():
    cull = decision(2, CommandKind.EMERGENCY, policy="governor", reason="blamed")
    page = run_of(
        *(state(0), decision(0), state(1), *planted(1)),
        *(intervened(2, restored=0), replace(cull, refused="there is no seed")),
        *(state(3), decision(3)),
    )
    section = under(page, "Epoch 3: the governor stepped in")
    assert "Severe: the loss is 20 times its mean. Blamed: `features.2`." in section
    assert "The network is again what it was at the end of epoch 1." in section
    assert "**, said `governor`." in section
    assert "The controller was not asked." in section
    curve = under(page, "The curve")
    assert "decisions   .PG.\n" in curve
    assert "undone at the end of epoch 3" in row(curve, "2 ")[-1]
    assert row(curve, "3 ")[1] == "not measured"
    assert "Nothing is permanent." in page
    assert row(under(page, "What went"), "`features.2`")[3:5] == ["epoch 2", "epoch 3"]


def test_a_fossil_that_was_undone_is_not_told_as_grown():
    events = grown_run()[:-3]
    back = [decision(5, CommandKind.ROLLBACK), intervened(5, restored=3)]
    page = explanation([*events, state(5), *back, FINISHED])
    assert "Nothing is permanent." in page
    assert "Go back to an earlier network" in under(page, "Epoch 6")
    assert row(under(page, "What is still on trial"), "`features.2`")[-1] == "probationary"
