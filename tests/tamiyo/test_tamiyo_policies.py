"""What every policy promises, on states of any kind."""

import json
import math

import msgspec
import pytest
from growing_run import CATALOGUE, NARROW, WIDE, GrowingRun, added, g4, legal_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esper_lightning.leyline import (
    LIVE_STAGES,
    CommandKind,
    FossilState,
    InvalidArgument,
    Objective,
    SeedStage,
    SeedState,
    SystemState,
    legal_commands,
)
from esper_lightning.tamiyo import (
    Choice,
    FRAGrow,
    GrowthBudget,
    Heuristic,
    Never,
    Periodic,
    RandomPolicy,
)

ROUND_ROBIN = {"slots": "round_robin", "blueprints": ["around", "behind"]}


def policies(budget: GrowthBudget | None = None):
    shared = {"catalogue": CATALOGUE, "budget": budget or GrowthBudget()}
    return {
        "never": Never(),
        "random": RandomPolicy(seed=1, action_rate=0.5, **shared),
        "random, every kind": RandomPolicy(
            action_rate=0.9,
            kinds=[kind for kind in CommandKind if kind is not CommandKind.NOOP],
            **shared,
        ),
        "periodic": Periodic(period=1, start=1, blueprints=["around"], **shared),
        "round robin": Periodic(period=2, start=2, **ROUND_ROBIN, **shared),
        "fragrow": FRAGrow(**shared),
        "heuristic": Heuristic(**shared),
        "overlapping": Heuristic(
            overlap=True, patience=0, max_live=2, spend=0.5, min_epoch=1, **shared
        ),
    }


any_float = st.one_of(
    st.none(), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e308]), st.floats(-2, 2)
)


@st.composite
def slots(draw, name: str) -> SeedState:
    stage = draw(st.sampled_from(SeedStage))
    live = stage in LIVE_STAGES
    paused = draw(st.booleans()) if live else False
    legal = legal_commands(stage, paused=paused)
    return SeedState(
        slot=name,
        stage=stage,
        paused=paused,
        age=draw(st.integers(0, 6)),
        shape=draw(st.sampled_from([NARROW, WIDE, None])),
        base_parameters=draw(st.integers(0, 1000)),
        pressure=draw(any_float),
        blueprint="around" if live else "",
        num_parameters=draw(st.integers(0, 500)) if live else 0,
        dropped_gradients=draw(st.one_of(st.none(), st.integers(0, 10))),
        gain=draw(any_float),
        rent=draw(any_float),
        cohort=draw(st.one_of(st.none(), st.integers(0, 23))) if live else None,
        gate=draw(st.sampled_from([None, g4(True), g4(False)])),
        legal=tuple(draw(st.lists(st.sampled_from(legal), unique=True))),
        fossils=draw(
            st.sampled_from(
                [
                    (),
                    (
                        FossilState(
                            blueprint="around",
                            parameters={},
                            num_parameters=50,
                            planted_epoch=1,
                            fossilized_epoch=2,
                        ),
                    ),
                ]
            )
        ),
        num_culls=draw(st.integers(0, 3)),
    )


@st.composite
def states(draw, epoch: int) -> SystemState:
    found = tuple(draw(slots(name)) for name in "abc"[: draw(st.integers(0, 3))])
    return SystemState(
        run_id="run",
        epoch=epoch,
        max_epochs=draw(st.sampled_from([None, 6, 24])),
        global_step=epoch,
        steps_per_epoch=draw(st.integers(0, 10)),
        objective=Objective(
            name="val/loss", mode=draw(st.sampled_from(["min", "max"])), value=draw(any_float)
        ),
        metrics={},
        slots=found,
        host_parameters=draw(st.integers(0, 2000)),
        num_parameters=draw(st.integers(0, 4000)),
        host_flops=draw(any_float),
        flops=draw(any_float),
    )


@st.composite
def runs(draw) -> list[SystemState]:
    epochs = sorted(draw(st.lists(st.integers(0, 23), min_size=1, max_size=6)))
    return [draw(states(epoch)) for epoch in epochs]


budgets = st.builds(
    GrowthBudget,
    max_parameters=st.one_of(st.none(), st.integers(0, 5000)),
    max_growth=st.one_of(st.none(), st.floats(0, 5)),
    max_flops_growth=st.one_of(st.none(), st.floats(0, 5)),
)


@pytest.mark.parametrize("name", policies())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seen=runs(), budget=budgets)
def test_choices_are_legal_reasoned_and_within_the_budget_and_resume_exactly(name, seen, budget):
    policy, resumed = policies(budget)[name], policies(budget)[name]
    for state in seen:
        # Every boundary is decided by a policy that was just restored from JSON, too.
        saved = json.loads(json.dumps(policy.state_dict()))
        resumed.load_state_dict(saved)
        choices = policy.decide(state)
        legal_at(state, choices)
        room = budget.room(state)
        parameters, flops = added(state, choices)
        assert parameters <= room.parameters
        assert flops <= room.flops
        if parameters:
            assert not room.missing
        again = resumed.decide(state)
        assert again == choices
        assert resumed.state_dict() == policy.state_dict()


@pytest.mark.parametrize("name", policies())
@pytest.mark.parametrize("stop", [7, 13, 19])
def test_a_resumed_run_decides_as_the_uninterrupted_one(name, stop):
    whole = GrowingRun().run(policies()[name])
    first = policies()[name]
    part = GrowingRun().run(first, end=stop)
    second = policies()[name]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    part.run(second, start=stop)
    assert part.log == whole.log
    assert part.slots == whole.slots


@pytest.mark.parametrize("name", policies())
def test_no_run_ends_with_a_live_seed(name):
    run = GrowingRun().run(policies()[name])
    assert not [each for each in run.slots if each.stage in LIVE_STAGES]


@pytest.mark.parametrize("name", policies())
def test_a_foreign_state_is_refused_and_changes_nothing(name):
    policy = policies()[name]
    before = policy.state_dict()
    with pytest.raises(InvalidArgument, match="resume with the policy"):
        policy.load_state_dict({"weights": [1.0]})
    assert policy.state_dict() == before


def test_names():
    names = [policy.name for policy in (Never, RandomPolicy, Periodic, Heuristic)]
    assert names == ["never", "random", "periodic", "heuristic"]


def test_never():
    run = GrowingRun().run(Never())
    assert run.kinds() == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": CommandKind.CULL, "slot": "a", "reason": ""}, "needs a reason"),
        ({"kind": CommandKind.NOOP, "slot": "a", "reason": "x"}, "NOOP and ROLLBACK name no slot"),
        ({"kind": CommandKind.CULL, "reason": "x"}, "every other kind names one"),
        ({"kind": CommandKind.GERMINATE, "slot": "a", "reason": "x"}, "names a blueprint"),
        (
            {"kind": CommandKind.CULL, "slot": "a", "blueprint": "b", "reason": "x"},
            "no other kind does",
        ),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(InvalidArgument, match=message):
        Choice(**fields)


def test_a_choice_is_a_plain_record():
    choice = Choice(kind=CommandKind.CULL, slot="a", reason="x")
    assert msgspec.json.decode(msgspec.json.encode(choice), type=Choice) == choice
