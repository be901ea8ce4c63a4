import inspect
import math
from pathlib import Path

import pytest
from growing_run import CATALOGUE, NARROW, GrowingRun, g4, slot, state
from omegaconf import OmegaConf

from esper_lightning.leyline import (
    CommandKind,
    FeatureKind,
    FeatureMap,
    InvalidArgument,
    Objective,
    SeedStage,
    SlotShape,
)
from esper_lightning.tamiyo import GrowthBudget, Heuristic
from esper_lightning.tamiyo.heuristic import BUDGET

CONF = Path(__file__).parents[2] / "conf/tamiyo/heuristic.yaml"


def policy(**options) -> Heuristic:
    """Of a run whose FLOPs are not counted."""
    return Heuristic(**({"catalogue": CATALOGUE, "budget": GrowthBudget()} | options))


def flat(deciding: Heuristic, *slots, last: int, **values):
    """Decide at the boundaries 0 to ``last`` of a loss that does not move; return the last."""
    for epoch in range(last + 1):
        choices = deciding.decide(state(*slots, epoch=epoch, **values))
    return choices


def test_a_run_whose_seeds_pay():
    run = GrowingRun().run(policy())
    kinds = run.kinds()
    first = kinds[:3]
    assert [(kind, name) for _, kind, name in first] == [("GERMINATE", name) for name in "abc"]
    assert {epoch for epoch, _, _ in first} == {11}  # the curve still falls: the latest useful time
    assert kinds[3:6] == [(13, "FOSSILIZE", name) for name in "abc"]
    assert all(each.fossils for each in run.slots)
    assert not any(kind == "CULL" for _, kind, _ in kinds)


def test_a_plateau_is_planted_on_before_the_latest_time():
    late = GrowingRun().run(policy())
    early = GrowingRun(floor=3.0).run(policy())
    assert early.kinds()[0][0] < late.kinds()[0][0]
    waits = [choices[0].reason for _, choices in early.log if not choices[0].slot]
    assert any("val/loss still falls" in reason for reason in waits)


def test_a_run_whose_seeds_do_not_pay_ends_as_the_host_alone():
    run = GrowingRun(gain=lambda _: -0.1).run(policy(trial_share=0.0))
    kinds = run.kinds()
    assert not any(each.fossils for each in run.slots)
    planted = [epoch for epoch, kind, name in kinds if kind == "GERMINATE" and name == "a"]
    culled = [epoch for epoch, kind, name in kinds if kind == "CULL" and name == "a"]
    assert [end - begin for begin, end in zip(planted, culled, strict=True)] == [3] * len(planted)
    assert planted[1] - culled[0] >= 3  # patience


def test_after_a_cull_another_blueprint_is_tried_and_kept():
    gain = {"behind": 0.2}
    run = GrowingRun(gain=lambda name: gain.get(name, 0.0)).run(policy(trial_share=0.0))
    assert {fossil.blueprint for each in run.slots for fossil in each.fossils} == {"behind"}


def test_an_open_ended_run_waits_for_the_plateau():
    run = GrowingRun(max_epochs=None, epochs=40).run(policy())
    assert run.kinds()[0][0] > 11
    assert any(each.fossils for each in run.slots)


def test_too_short_a_run_is_left_alone():
    run = GrowingRun(max_epochs=5, epochs=5).run(policy())
    assert run.kinds() == []
    assert "too late" in run.log[2][1][0].reason


def test_every_reason_of_a_planting_says_when_where_and_what():
    choices = flat(policy(), slot("a", pressure=0.25), last=2)
    assert choices[0].reason == (
        "val/loss improves 0.0% an epoch; growing below 1.0%; pressure 0.25; "
        "around(expansion=8.0) adds 1,024 parameters; the slot's share: 4,000 parameters"
    )


def test_the_most_pressed_slots_first_and_no_more_than_may_live():
    slots = [slot(name, pressure=value) for name, value in zip("abc", (1.0, 3.0, 2.0), strict=True)]
    choices = flat(policy(max_live=2), *slots, last=2)
    assert [choice.slot for choice in choices] == ["b", "c"]


def test_spend_keeps_some_of_the_budget_for_later():
    assert flat(policy(spend=0.1), slot(), last=2)[0].parameters == {"expansion": 3.0}


def test_only_a_share_of_the_flops_that_are_left_is_planted():
    budget = GrowthBudget(max_flops_growth=0.5)
    counted = {"host_flops": 6000.0, "flops": 7000.0}
    choices = flat(policy(budget=budget), slot(), last=2, **counted)
    assert choices[0].parameters == {"expansion": 2.5}  # 768 of 2,000 training FLOPs a unit
    missing = flat(policy(budget=budget), slot(), last=2)
    assert missing[0].kind is CommandKind.NOOP
    assert "FLOPs were not counted" in missing[0].reason


def test_no_second_cohort_while_one_is_live():
    live = slot("a", SeedStage.BLENDING, cohort=0)
    alone = flat(policy(), live, slot("b"), last=3)
    assert alone[0].reason == "seeds are live: a BLENDING (age 1), its gain was not measured"
    overlapping = flat(policy(overlap=True), live, slot("b"), last=3)
    assert [choice.slot for choice in overlapping] == ["b"]
    full = flat(policy(overlap=True, max_live=1), live, slot("b"), last=3)
    assert full[0].reason == "1 seeds are live, at most 1 may be"


def test_nothing_free_and_nothing_left_are_said():
    busy = flat(policy(), slot("a", SeedStage.EMBARGOED), last=4)
    assert "no slot is free" in busy[0].reason
    spent = flat(policy(), slot("a"), last=4, num_parameters=5000)
    assert "nothing fits what is left of the budget: 0 parameters" in spent[0].reason


def test_incubated_runs_may_plant_what_is_loud_at_birth():
    only_loud = {"loud": CATALOGUE["loud"]}
    assert not flat(policy(catalogue=only_loud), slot(), last=2)[0].slot
    choices = flat(policy(catalogue=only_loud, require_zero_at_birth=False), slot(), last=2)
    assert choices[0].blueprint == "loud"


def test_a_refused_planting_waits_for_patience_and_tries_another_blueprint():
    deciding = policy(patience=2)
    names = []
    for epoch in range(12):  # nothing that is asked for is ever carried out
        choice = deciding.decide(state(slot("a"), epoch=epoch))[0]
        if choice.slot:
            names.append((epoch, choice.blueprint))
    assert names[:2] == [(2, "around"), (5, "behind")]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_objective_culls_what_is_on_trial_and_plants_nothing(value):
    deciding = policy()
    broken = Objective(name="val/loss", value=value)
    on_trial = slot("a", SeedStage.PROBATIONARY, gate=g4(True))
    choices = deciding.decide(state(on_trial, slot("b"), epoch=5, objective=broken))
    assert [(choice.kind.name, choice.slot) for choice in choices] == [("CULL", "a")]
    assert "not finite" in choices[0].reason
    assert f"val/loss is {value}" in flat(policy(), slot("b"), last=6, objective=broken)[0].reason


def test_a_regression_since_planting_culls_the_cohort():
    deciding = policy()
    for epoch in range(4):
        deciding.decide(state(slot("a"), epoch=epoch, max_epochs=None))
    on_trial = slot("a", SeedStage.PROBATIONARY, cohort=3)
    bearable = Objective(name="val/loss", value=1.4)
    assert not deciding.decide(state(on_trial, epoch=4, objective=bearable))[0].slot
    bad = Objective(name="val/loss", value=1.6)
    assert not deciding.decide(state(on_trial, epoch=5, objective=bad))[0].slot
    choices = deciding.decide(state(on_trial, epoch=6, objective=bad))
    assert choices[0].kind is CommandKind.CULL
    assert "60% worse than at planting" in choices[0].reason


def test_a_missing_objective_is_no_evidence_for_anything():
    deciding = policy(latest_fraction=None)
    missing = Objective(name="val/loss")
    choices = flat(deciding, slot("a"), last=9, objective=missing)
    assert "val/loss was never seen" in choices[0].reason
    on_trial = slot("a", SeedStage.PROBATIONARY, cohort=3, age=9)
    assert not deciding.decide(state(on_trial, epoch=10, objective=missing))[0].slot


def test_the_same_boundary_again_gives_the_same_wait():
    """A resumed trainer may repeat the boundary that it was saved at, without metrics."""
    deciding = policy()
    for epoch in range(6):
        deciding.decide(state(slot("a", SeedStage.BLENDING), epoch=epoch))
    before = deciding.state_dict()
    again = state(slot("a", SeedStage.BLENDING), epoch=5, objective=Objective(name="val/loss"))
    assert not deciding.decide(again)[0].slot
    assert deciding.state_dict() == before


def test_the_real_catalogue_on_a_narrow_convolution():
    shape = SlotShape(
        FeatureMap(FeatureKind.SPATIAL, (8, 8, 8)), FeatureMap(FeatureKind.SPATIAL, (8, 4, 4))
    )
    both = slot("a", shape=shape), slot("b", shape=NARROW)
    choices = flat(Heuristic(), *both, last=2, host_flops=1e6, flops=1e6)
    assert {choice.slot for choice in choices} == {"a", "b"}
    assert all(choice.blueprint.startswith("parallel_") for choice in choices)


def test_the_defaults_of_the_class_are_those_of_the_configuration():
    options = OmegaConf.to_container(OmegaConf.load(CONF))["policy"]
    budget = {key: value for key, value in options.pop("budget").items() if key[0] != "_"}
    assert GrowthBudget(**budget) == BUDGET
    defaults = inspect.signature(Heuristic).parameters
    del options["_target_"]
    assert {key: defaults[key].default for key in options} == options


def test_without_a_budget_the_flops_are_limited_too():
    counted = {"host_flops": 100.0, "flops": 100.0, "host_parameters": 200, "num_parameters": 200}
    few = flat(Heuristic(catalogue=CATALOGUE), slot(), last=2, **counted)
    assert few[0].parameters == {"expansion": 1.0}  # 768 training FLOPs of 800
    uncounted = flat(Heuristic(catalogue=CATALOGUE), slot(), last=2)
    assert "FLOPs were not counted" in uncounted[0].reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_live": 0}, "max_live must be a whole number of at least 1, got 0"),
        ({"spend": 0.0}, "spend is a share above 0 and at most 1, got 0"),
        ({"spend": math.nan}, "got nan"),
        ({"trial": 0}, "trial must be a whole number of at least 1, got 0"),
        ({"window": 1}, "window must be at least 3"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(InvalidArgument, match=message):
        policy(**options)
