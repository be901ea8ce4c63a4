"""Rules refuse numbers under which a lifecycle makes no sense, and name them."""

import math
from dataclasses import fields
from typing import Any

import pytest

from esper_lightning.kasmina import GateRules, LifecycleRules
from esper_lightning.leyline import LIVE_STAGES, InvalidArgument, SeedStage

THRESHOLDS = [entry.name for entry in fields(GateRules) if entry.name != "judge_gain"]


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, -math.inf])
def test_a_threshold_is_finite_and_at_least_0(name: str, value: float) -> None:
    """An infinite one could not be written beside what was measured: JSON has no infinity."""
    rule: dict[str, Any] = {name: value}
    with pytest.raises(InvalidArgument, match=f"gate rule {name} must be a finite number"):
        GateRules(**rule)


@pytest.mark.parametrize("value", [None, 0, 1, "maybe"])
def test_whether_a_gain_is_judged_is_true_or_false(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="gate rule judge_gain must be true or false"):
        GateRules(judge_gain=value)


def test_a_window_has_at_least_one_epoch() -> None:
    with pytest.raises(InvalidArgument, match="window must be whole epochs, at least 1, got 0"):
        GateRules(window=0)
    assert GateRules(window=1, max_parameters=None, price_per_parameter=0.0).window == 1


@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
def test_a_trust_radius_is_positive_and_finite(value: float) -> None:
    with pytest.raises(InvalidArgument, match=f"trust_radius must be .* got {value}"):
        LifecycleRules(trust_radius=value)


@pytest.mark.parametrize("rule", [{"embargo": 0}, {"max_fossils": 0}, {"max_fossils": -1}])
def test_embargo_and_fossils_are_at_least_1(rule: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="must be a whole number of at least 1"):
        LifecycleRules(**rule)
    assert LifecycleRules(embargo=1, max_fossils=None).max_fossils is None


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"min_ages": {"GERMINATED": 1}}, r"min_ages\['GERMINATED'\] = 1: stages are TRAINING"),
        ({"min_ages": {"training": 1}}, r"min_ages\['training'\]"),
        (
            {"min_ages": {"TRAINING": 0}},
            r"min_ages\['TRAINING'\] = 0.*ages whole epochs",
        ),
        ({"max_ages": {"FOSSILIZED": 3}}, r"max_ages\['FOSSILIZED'\] = 3: stages are GERMINATED"),
        (
            {"min_ages": {"BLENDING": 11}},
            r"max_ages\['BLENDING'\] = 10 epochs is below min_ages, 11",
        ),
        ({"max_ages": {"BLENDING": -2}}, r"max_ages\['BLENDING'\] = -2"),
    ],
)
def test_ages_are_of_stages_that_have_one(rule: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        LifecycleRules(**rule)


def test_every_live_stage_has_a_maximum_age_and_a_minimum_below_it() -> None:
    rules = LifecycleRules()
    for stage in LIVE_STAGES:
        assert rules.min_age(stage) < rules.max_age(stage)
    for stage in LIVE_STAGES - {SeedStage.GERMINATED}:
        assert rules.min_age(stage) >= 1


def test_an_age_that_is_named_replaces_its_default_and_no_other() -> None:
    rules, plain = (
        LifecycleRules(min_ages={"BLENDING": 5}, max_ages={"TRAINING": 7}),
        LifecycleRules(),
    )
    assert rules.min_age(SeedStage.BLENDING) == 5
    assert rules.max_age(SeedStage.TRAINING) == 7
    assert rules.min_age(SeedStage.SHADOWING) == plain.min_age(SeedStage.SHADOWING)
    assert rules.max_age(SeedStage.BLENDING) == plain.max_age(SeedStage.BLENDING)
