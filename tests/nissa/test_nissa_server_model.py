"""What mission control makes of a run's events."""

from msgspec.structs import replace
from synthetic_run import synthetic_run

from esper_lightning.leyline import (
    Decision,
    Risk,
    RiskLevel,
    SeedStage,
    Signal,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.server.run_model import MAX_MOVES, MAX_POINTS, MAX_REASONS, RunModel

SLOTS = ("features.0", "features.1")


def test_at_every_event_a_slot_stands_where_its_last_move_left_it():
    model = RunModel("run")
    stages = {}
    for event in synthetic_run(SLOTS, 40, seed=2):
        model.take([event])
        if isinstance(event, StageChanged):
            stages[event.slot] = event.after
        model.patch()
        for lane in model.whole().lanes or ():
            assert lane.stage == stages[lane.slot].name.lower()
            lives = stages[lane.slot] in (SeedStage.TRAINING, SeedStage.PROBATIONARY)
            assert bool(lane.blueprint) >= lives
            # A seed that has become permanent is drawn once.
            assert not (lane.stage == "fossilized" and lane.blueprint)


def test_patches_taken_together_are_the_whole():
    model = RunModel("run")
    known = {}
    for event in synthetic_run(SLOTS, 25, seed=4):
        model.take([event])
        patch = model.patch()
        if patch is None:
            continue
        for section in ("head", "lanes", "layers"):
            if getattr(patch, section) is not None:
                known[section] = getattr(patch, section)
        if patch.reasons is not None:
            known["reasons"] = (*patch.reasons, *known.get("reasons", ()))
        if patch.curves is not None:
            first, new = patch.curves.first, patch.curves.curves
            old = known.get("times", ())
            known["times"] = (*old[:first], *new.times)
    whole = model.whole()
    assert known["head"] == whole.head
    assert known["lanes"] == whole.lanes
    assert known["reasons"] == whole.reasons
    assert known["times"] == whole.curves.curves.times


def test_the_hosts_share_of_what_was_spent_is_told():
    states = [event for event in synthetic_run(SLOTS, 3) if isinstance(event, SystemState)]
    grows = zip(states, (10.0, 20.0, 40.0), (100.0, 300.0, 700.0), strict=True)
    model = RunModel("run")
    model.take(
        replace(state, host_flops=10.0, flops=flops, total_flops=total, num_parameters=2000)
        for state, flops, total in grows
    )
    curves = model.whole().curves.curves
    assert curves.total_flops == (100, 300, 700)
    assert curves.host_total_flops == (100, 200, 300)
    assert curves.parameters == (2000, 2000, 2000)
    assert model.whole().head.host_total_flops == 300


def test_what_is_good_and_what_is_bad_is_told():
    model = RunModel("run")
    model.take(synthetic_run(SLOTS, 40, seed=2, cull=0.6))
    tones = {each.title.split()[0]: each.tone for each in model.whole().reasons}
    assert (tones["fossilized"], tones["culled"], tones["training"]) == ("good", "bad", "plain")


def test_a_signal_that_is_no_number_is_absent():
    model = RunModel("run")
    events = synthetic_run(SLOTS, 12, seed=3)
    decided = next(event for event in events if isinstance(event, Decision))
    signals = {Signal.GRADIENT: float("nan"), Signal.LATENCY: 0.5}
    risk = Risk(level=RiskLevel.RED, signals=signals)
    model.take([*events[:20], replace(decided, risk=risk)])
    assert model.patch().head.risk.signals == {Signal.LATENCY.value: 0.5}


def test_memory_is_bounded_however_long_a_run_is():
    model = RunModel("run")
    events = synthetic_run(SLOTS, 6 * MAX_POINTS)
    for start in range(0, len(events), 500):
        model.take(events[start : start + 500])
    whole = model.whole()
    assert len(whole.curves.curves.times) <= 2 * MAX_POINTS
    assert len(whole.reasons) == MAX_REASONS
    assert sum(len(lane.marks) for lane in whole.lanes) <= 2 * MAX_MOVES
    assert whole.head.left_out > 0
    states = [event for event in events if isinstance(event, SystemState)]
    assert whole.head.epoch == len(states)
