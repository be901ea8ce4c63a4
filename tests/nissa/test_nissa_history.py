import math

import pytest
from msgspec.structs import replace
from synthetic_run import HOST, RUN_ID, synthetic_run

from esper_lightning.leyline import (
    InvalidArgument,
    SeedStage,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.history import Fate, history

SEEDS = range(6)


def states(events):
    return [event for event in events if isinstance(event, SystemState)]


@pytest.mark.parametrize("seed", SEEDS)
def test_lanes_are_covered_without_gaps_and_agree_with_the_states(seed):
    run = synthetic_run(("a", "b"), 30, seed=seed)
    told = history(run)
    for lane in told.lanes:
        assert lane.spans[0].start == told.start == 0
        assert lane.spans[-1].end == told.end == 30
        for left, right in zip(lane.spans, lane.spans[1:], strict=False):
            assert left.end == right.start
            assert left.stage is not right.stage
        for state in states(run):
            during = [s.stage for s in lane.spans if s.start < state.epoch + 0.5 < s.end]
            before = [
                e.after
                for e in run
                if isinstance(e, StageChanged) and e.slot == lane.slot and e.epoch < state.epoch
            ]
            assert during == before[-1:]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_planting_fossil_and_cull_is_marked(seed):
    run = synthetic_run(("a", "b", "c"), 30, seed=seed)
    moves = [e for e in run if isinstance(e, StageChanged)]
    marks = [mark for lane in history(run).lanes for mark in lane.marks]
    for fate, stage in (
        (Fate.PLANTED, SeedStage.GERMINATED),
        (Fate.FOSSILIZED, SeedStage.FOSSILIZED),
        (Fate.CULLED, SeedStage.CULLED),
    ):
        assert sorted(m.time for m in marks if m.fate is fate) == sorted(
            e.epoch + 1.0 for e in moves if e.after is stage
        )


@pytest.mark.parametrize("epochs", [8, 9, 10, 11, 12])
def test_fossils_of_the_last_boundary_are_there_once(epochs):
    run = synthetic_run(("a",), epochs, plant=1.0, cull=0.0)
    fossils = history(run).lanes[0].fossils
    moves = [e for e in run if isinstance(e, StageChanged) and e.after is SeedStage.FOSSILIZED]
    assert [f.time for f in fossils] == [e.epoch + 1.0 for e in moves]


@pytest.mark.parametrize("seed", SEEDS)
def test_parameters_are_those_that_each_epoch_trained(seed):
    run = synthetic_run(("a", "b"), 20, seed=seed)
    trained, alive, trains, kept = [], {}, {}, HOST
    for event in run:
        if isinstance(event, SystemState):
            trained.append((event.epoch + 1.0, kept + sum(trains.values())))
            trains = dict(alive)
        elif isinstance(event, StageChanged):
            if event.after is SeedStage.GERMINATED:
                alive[event.slot] = trains[event.slot] = event.num_parameters
            elif event.after is SeedStage.FOSSILIZED:
                kept += alive.pop(event.slot)
                del trains[event.slot]
            elif event.after is SeedStage.EMBARGOED:
                del alive[event.slot]
    told = history(run)
    assert told.num_parameters == tuple(trained)
    assert told.host_parameters == HOST


def test_a_seed_removed_after_the_state_is_not_counted_in_the_next_epoch():
    run = synthetic_run(("a",), 8, plant=0.0)
    index = run.index(states(run)[3])
    gone = StageChanged(
        run_id=RUN_ID,
        epoch=3,
        step=1,
        slot="a",
        before=SeedStage.CULLED,
        after=SeedStage.EMBARGOED,
        num_parameters=500,
    )
    told = history([*run[: index + 1], gone, *run[index + 1 :]])
    assert {count for _, count in told.num_parameters} == {HOST}


def test_final_parameters_leave_out_what_was_culled_last():
    run = synthetic_run(("a",), 6, plant=1.0)
    last = states(run)[-1]
    slot = last.slots[0]
    assert slot.num_parameters > 0
    assert history(run).final_parameters == last.num_parameters
    cull = StageChanged(
        run_id=RUN_ID,
        epoch=last.epoch,
        step=1,
        slot="a",
        before=slot.stage,
        after=SeedStage.CULLED,
        num_parameters=slot.num_parameters,
    )
    assert history([*run, cull]).final_parameters == HOST


def test_accuracy_is_preferred_then_the_objective():
    told = history(synthetic_run(("a",), 3))
    assert (told.validation.name, told.training.name) == ("val/acc", "train/acc")
    told = history(synthetic_run(("a",), 3, metrics=("loss",)))
    assert (told.validation.name, told.training.name) == ("val/loss", "train/loss")
    told = history(synthetic_run(("a",), 3, metrics=()))
    assert told.validation.name == "val/loss"
    assert told.validation.last is None
    assert told.training is None


def test_missing_and_infinite_values_are_gaps():
    run = synthetic_run(("a",), 4)
    values = iter([None, math.inf, math.nan, 0.25])
    broken = []
    for event in run:
        if isinstance(event, SystemState):
            value = next(values)
            metrics = {} if value is None else {"val/acc": value}
            event = replace(event, metrics=metrics)
        broken.append(event)
    curve = history(broken).validation
    assert [math.isnan(v) for v in curve.values] == [True, True, True, False]
    assert curve.last == (4.0, 0.25)
    assert curve.at(1.0) == 0.25


def test_run_seen_from_its_middle_begins_there():
    run = synthetic_run(("a",), 20, plant=1.0)
    late = [run[0]] + [e for e in run[1:] if e.epoch >= 10]
    told = history(late)
    assert (told.start, told.end) == (10.0, 20.0)
    assert told.lanes[0].spans[0].start == 10.0


def test_a_run_without_an_epoch_has_no_history():
    with pytest.raises(InvalidArgument, match="no epoch boundary among 1 events"):
        history(synthetic_run(("a",), 3)[:1])
