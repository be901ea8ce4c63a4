import pytest
from growing_run import CATALOGUE, GrowingRun, g4, slot, state

from esper_lightning.leyline import InvalidArgument, SeedStage, UnknownBlueprint
from esper_lightning.tamiyo import GrowthBudget, Periodic


def policy(**options) -> Periodic:
    defaults = {"catalogue": CATALOGUE, "blueprints": ["around"], "budget": GrowthBudget()}
    return Periodic(**(defaults | options))


def planted(run: GrowingRun) -> list[tuple[int, str, str]]:
    return [
        (epoch, choice.slot, choice.blueprint)
        for epoch, choices in run.log
        for choice in choices
        if choice.blueprint
    ]


def test_it_plants_by_the_calendar_in_every_free_slot():
    run = GrowingRun().run(policy(start=4, period=8, trial=3))
    assert [(epoch, name) for epoch, name, _ in planted(run)] == [
        (epoch, name) for epoch in (3, 11) for name in "abc"
    ] + [(19, "a")]  # the budget of 4,000 parameters ends after seven of 512


def test_round_robin_takes_slots_and_blueprints_in_turn():
    settings = {"slots": "round_robin", "blueprints": ["around", "behind"], "trial": 2}
    run = GrowingRun().run(policy(start=2, period=5, **settings))
    assert planted(run) == [
        (1, "a", "around"),
        (6, "b", "behind"),
        (11, "c", "around"),
        (16, "a", "behind"),
        (21, "b", "around"),
    ]


def test_round_robin_passes_a_slot_that_is_not_free():
    seen = [slot("a", SeedStage.PROBATIONARY, age=0), slot("b"), slot("c")]
    choices = policy(start=1, period=1, slots="round_robin").decide(state(*seen, epoch=4))
    assert [choice.slot for choice in choices] == ["b"]


@pytest.mark.parametrize(("passed", "kind"), [(True, "FOSSILIZE"), (False, "CULL")])
def test_after_the_trial_the_gate_decides(passed, kind):
    young = slot("a", SeedStage.PROBATIONARY, age=2, gate=g4(passed))
    old = slot("b", SeedStage.PROBATIONARY, age=3, gate=g4(passed))
    isolated = slot("c", SeedStage.TRAINING, age=9)
    choices = policy(trial=3).decide(state(young, old, isolated, epoch=9))
    assert [(choice.kind.name, choice.slot) for choice in choices] == [(kind, "b")]


def test_it_says_when_it_plants_next():
    assert policy(start=6).decide(state(slot(), epoch=2))[0].reason == (
        "plants next after 6 epochs, 3 are done"
    )
    assert policy(start=6, period=4).decide(state(slot(), epoch=6))[0].reason == (
        "plants next after 10 epochs, 7 are done"
    )
    full = state(slot(), epoch=5, num_parameters=5000)
    assert "nothing fits" in policy(start=6).decide(full)[0].reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"period": 0}, "period must be a whole number of at least 1, got 0"),
        ({"start": 0}, "start must be a whole number of at least 1, got 0"),
        ({"trial": 0}, "trial must be a whole number of at least 1, got 0"),
        ({"slots": "some"}, "'all' or 'round_robin', got 'some'"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(InvalidArgument, match=message):
        policy(**options)


def test_the_default_blueprints_exist():
    Periodic()
    with pytest.raises(UnknownBlueprint):
        Periodic(blueprints=["parallel"])
