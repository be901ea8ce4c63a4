"""Every gate, one measurement at a time: what passes, what fails, and what is missing."""

import math
from collections.abc import Callable
from dataclasses import replace as with_rules
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor, nn

from esper_lightning.kasmina import GateRules, gates
from esper_lightning.kasmina.record import EpochEvidence, SeedRecord
from esper_lightning.leyline import (
    BlendSchedule,
    Gate,
    GateResult,
    Incubation,
    Measurement,
    SeedStage,
)

RULES = GateRules(
    min_gradient_norm=0.5,
    max_dropped=0.25,
    max_gradient_spread=1.0,
    max_loss_spread=0.75,
    max_regression=0.1,
    max_output_ratio=2.0,
    max_noise=0.05,
    max_parameters=1000,
)

HEALTHY = EpochEvidence(
    stage=SeedStage.TRAINING,
    gradient_norm=1.0,
    gradient_spread=0.5,
    dropped=0,
    steps=8,
    output_ratio=1.0,
    loss=1.0,
    loss_spread=0.5,
    objective=1.0,
    noise=0.0,
)


def seed(*evidence: EpochEvidence, entered_at: float | None = 1.0) -> SeedRecord:
    return SeedRecord(
        blueprint="conv",
        parameters={},
        incubation=Incubation.STRAIGHT_THROUGH,
        blend=BlendSchedule(),
        num_parameters=10,
        planted_epoch=0,
        planted_step=0,
        rng_seed=0,
        network_parameters_before=100,
        flops_before=None,
        objective_at_entry=entered_at,
        evidence=list(evidence),
    )


def g1(found: EpochEvidence | None, **_: Any) -> GateResult:
    return gates.gradient_health(seed(*as_list(found, SeedStage.TRAINING)), RULES)


def g2(found: EpochEvidence | None, *, alpha: float = 1.0, mode: str = "min") -> GateResult:
    record = seed(*as_list(found, SeedStage.BLENDING))
    return gates.stability(record, alpha=alpha, mode=mode, rules=RULES)


def g3(found: EpochEvidence | None, *, mode: str = "min") -> GateResult:
    return gates.interface(seed(*as_list(found, SeedStage.SHADOWING)), mode=mode, rules=RULES)


def g4(
    found: EpochEvidence | None, *, gain: float | None = 0.2, network_parameters: int = 1000
) -> GateResult:
    return gates.system_impact(
        seed(*as_list(found, SeedStage.PROBATIONARY)),
        gain=gain,
        rent=0.1,
        network_parameters=network_parameters,
        rules=RULES,
    )


def as_list(found: EpochEvidence | None, stage: SeedStage) -> list[EpochEvidence]:
    return [] if found is None else [replace(found, stage=stage)]


def failed(result: GateResult) -> list[str]:
    return [measurement.name for measurement in result.failures]


def named(result: GateResult, name: str) -> Measurement:
    return next(m for m in result.measurements if m.name == name)


GATES: list[tuple[Callable[..., GateResult], Gate, list[str]]] = [
    (g1, Gate.G1_GRADIENT_HEALTH, ["gradient norm", "dropped gradients"]),
    (g2, Gate.G2_STABILITY, ["alpha", "gradient spread", "loss spread", "regression"]),
    (g3, Gate.G3_INTERFACE, ["regression", "output ratio", "noise in evaluation"]),
    (
        g4,
        Gate.G4_SYSTEM_IMPACT,
        ["gain", "dropped gradients", "noise in evaluation", "network parameters"],
    ),
]


@pytest.mark.parametrize(
    ("ask", "gate", "names"), GATES, ids=lambda value: getattr(value, "name", "")
)
def test_a_healthy_seed_passes_and_everything_measured_is_told(
    ask: Callable[..., GateResult], gate: Gate, names: list[str]
) -> None:
    result = ask(HEALTHY)
    assert result.passed
    assert result.gate is gate
    assert [measurement.name for measurement in result.measurements] == names


@pytest.mark.parametrize(
    ("ask", "field", "fine", "bad", "name"),
    [
        (g1, "gradient_norm", 0.5, 0.499, "gradient norm"),
        (g1, "dropped", 2, 3, "dropped gradients"),
        (g2, "gradient_spread", 1.0, 1.001, "gradient spread"),
        (g2, "loss_spread", 0.75, 0.751, "loss spread"),
        (g2, "objective", 1.1 - 1e-9, 1.101, "regression"),
        (g3, "objective", 1.1 - 1e-9, 1.101, "regression"),
        (g3, "output_ratio", 2.0, 2.001, "output ratio"),
        (g3, "noise", 0.05, 0.051, "noise in evaluation"),
        (g4, "dropped", 2, 3, "dropped gradients"),
        (g4, "noise", 0.05, 0.051, "noise in evaluation"),
    ],
)
def test_a_gate_closes_at_its_threshold(
    ask: Callable[..., GateResult], field: str, fine: float, bad: float, name: str
) -> None:
    assert ask(replace(HEALTHY, **{field: fine})).passed
    assert failed(ask(replace(HEALTHY, **{field: bad}))) == [name]


@pytest.mark.parametrize("value", [None, math.nan])
@pytest.mark.parametrize(
    ("ask", "field", "name"),
    [
        (g1, "gradient_norm", "gradient norm"),
        (g2, "gradient_spread", "gradient spread"),
        (g2, "loss_spread", "loss spread"),
        (g2, "objective", "regression"),
        (g3, "noise", "noise in evaluation"),
        (g4, "noise", "noise in evaluation"),
        (g3, "objective", "regression"),
        (g3, "output_ratio", "output ratio"),
    ],
)
def test_what_is_missing_or_not_a_number_closes_a_gate(
    ask: Callable[..., GateResult], field: str, name: str, value: float | None
) -> None:
    assert failed(ask(replace(HEALTHY, **{field: value}))) == [name]


def test_without_an_epoch_in_its_stage_nothing_that_needs_one_passes() -> None:
    assert failed(g1(None)) == ["gradient norm", "dropped gradients"]
    assert failed(g2(None)) == ["gradient spread", "loss spread", "regression"]
    assert failed(g3(None)) == ["regression", "output ratio", "noise in evaluation"]
    assert failed(g4(None)) == ["dropped gradients", "noise in evaluation"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda record: gates.gradient_health(record, RULES),
        lambda record: gates.stability(record, alpha=1.0, mode="min", rules=RULES),
        lambda record: gates.interface(record, mode="min", rules=RULES),
    ],
)
def test_evidence_of_another_stage_does_not_count(ask: Callable[[SeedRecord], GateResult]) -> None:
    assert not ask(seed(replace(HEALTHY, stage=SeedStage.PROBATIONARY))).passed


@pytest.mark.parametrize("ask", [g1, g2, g3, g4])
def test_only_the_last_epoch_of_a_stage_is_judged(ask: Callable[..., GateResult]) -> None:
    stage = {g1: SeedStage.TRAINING, g2: SeedStage.BLENDING, g3: SeedStage.SHADOWING}.get(
        ask, SeedStage.PROBATIONARY
    )
    good = replace(HEALTHY, stage=stage)
    bad = replace(good, gradient_norm=0.0, dropped=8, gradient_spread=9.0, objective=9.0)
    asks: dict[Callable[..., GateResult], Callable[[SeedRecord], GateResult]] = {
        g1: lambda record: gates.gradient_health(record, RULES),
        g2: lambda record: gates.stability(record, alpha=1.0, mode="min", rules=RULES),
        g3: lambda record: gates.interface(record, mode="min", rules=RULES),
        g4: lambda record: gates.system_impact(
            record, gain=1.0, rent=0.1, network_parameters=1, rules=RULES
        ),
    }
    assert asks[ask](seed(bad, good)).passed
    assert not asks[ask](seed(good, bad)).passed


def test_an_epoch_without_steps_says_nothing_about_gradients() -> None:
    assert failed(g1(replace(HEALTHY, steps=0))) == ["dropped gradients"]
    assert named(g1(replace(HEALTHY, steps=0)), "dropped gradients").value is None


@pytest.mark.parametrize(("ask", "stage"), [(g1, SeedStage.TRAINING), (g4, SeedStage.PROBATIONARY)])
def test_a_seed_that_no_gradient_reached_is_told_so(
    ask: Callable[..., GateResult], stage: SeedStage
) -> None:
    nothing = replace(HEALTHY, stage=stage, gradient_norm=None, gradient_spread=None, steps=0)
    assert nothing.is_unreached
    assert failed(ask(nothing)) == ["steps in which a gradient reached the seed"]
    assert "reached the seed 0 >= 1 (the slot's output is not used, or it runs" in str(ask(nothing))
    assert not replace(nothing, loss=None).is_unreached, "nothing was trained"
    assert not replace(nothing, stage=SeedStage.CULLED).is_unreached


@pytest.mark.parametrize("ask", [g2, g3])
def test_a_regression_is_relative_and_knows_what_is_better(ask: Callable[..., GateResult]) -> None:
    worse, better = replace(HEALTHY, objective=1.5), replace(HEALTHY, objective=0.5)
    assert named(ask(worse), "regression").value == 0.5
    assert named(ask(better), "regression").value == -0.5
    assert named(ask(worse, mode="max"), "regression").value == -0.5
    assert failed(ask(better, mode="max")) == ["regression"]


@pytest.mark.parametrize("entered_at", [None, 0.0])
def test_a_regression_needs_an_objective_to_start_from(entered_at: float | None) -> None:
    record = seed(replace(HEALTHY, stage=SeedStage.SHADOWING), entered_at=entered_at)
    assert failed(gates.interface(record, mode="min", rules=RULES)) == ["regression"]


@pytest.mark.parametrize("alpha", [0.0, 0.999, math.nan])
def test_a_ramp_must_be_complete(alpha: float) -> None:
    assert failed(g2(HEALTHY, alpha=alpha)) == ["alpha"]


@pytest.mark.parametrize("gain", [None, math.nan, -1.0, 0.0999])
def test_a_gain_below_its_rent_is_not_enough(gain: float | None) -> None:
    assert failed(g4(HEALTHY, gain=gain)) == ["gain"]
    assert g4(HEALTHY, gain=0.1).passed


def test_a_network_stays_within_its_budget() -> None:
    assert failed(g4(HEALTHY, network_parameters=1001)) == ["network parameters"]
    unbounded = gates.system_impact(
        seed(replace(HEALTHY, stage=SeedStage.PROBATIONARY)),
        gain=1.0,
        rent=0.1,
        network_parameters=10**12,
        rules=with_rules(RULES, max_parameters=None),
    )
    assert unbounded.passed


# -- G0 ---------------------------------------------------------------------------------------


def g0(
    output: tuple[Tensor, Tensor] | None,
    *,
    incubation: Incubation = Incubation.STRAIGHT_THROUGH,
    module: nn.Module | None = None,
    network_parameters: int = 1000,
) -> GateResult:
    return gates.sanity(
        module or nn.Linear(2, 2),
        output,
        incubation=incubation,
        network_parameters=network_parameters,
        rules=RULES,
    )


def test_a_sane_seed_passes() -> None:
    ones = torch.ones(4, 3)
    assert g0((ones, ones)).passed
    assert g0((2 * ones, ones)).passed
    assert g0((torch.zeros(4, 3), ones), incubation=Incubation.DIRECT).passed


@pytest.mark.parametrize("incubation", Incubation)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_output_that_is_not_finite_fails(incubation: Incubation, value: float) -> None:
    produced = torch.zeros(4, 3)
    produced[1, 2] = value
    assert "non-finite outputs" in failed(g0((produced, torch.ones(4, 3)), incubation=incubation))


@pytest.mark.parametrize("incubation", Incubation)
def test_without_an_output_a_seed_fails(incubation: Incubation) -> None:
    assert failed(g0(None, incubation=incubation)) == ["non-finite outputs"]


def test_a_parameter_that_is_not_finite_fails_and_is_counted() -> None:
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight[0] = math.nan
        module.bias[1] = math.inf
    result = g0((torch.ones(4, 3), torch.ones(4, 3)), module=module)
    assert failed(result) == ["non-finite parameters"]
    assert named(result, "non-finite parameters").value == 3


def test_an_output_of_another_shape_fails() -> None:
    result = g0((torch.zeros(4, 2), torch.ones(4, 3)))
    assert failed(result) == ["outputs of another shape"]


def test_direct_insertion_asks_for_exactly_nothing() -> None:
    produced = torch.zeros(4, 3)
    produced[0, 0] = -1e-30
    result = g0((produced, torch.ones(4, 3)), incubation=Incubation.DIRECT)
    assert failed(result) == ["largest output at birth"]
    assert g0((produced, torch.ones(4, 3))).passed


def test_an_output_that_drowns_its_host_fails() -> None:
    ones = torch.ones(4, 3)
    assert failed(g0((2.01 * ones, ones))) == ["output ratio"]
    assert failed(g0((ones, 1e-30 * ones))) == ["output ratio"]
    assert failed(g0((ones, torch.zeros(4, 3)))) == [], "a slot that was drawn as zero has no size"


def test_a_seed_over_budget_fails() -> None:
    ones = torch.ones(4, 3)
    assert failed(g0((ones, ones), network_parameters=1001)) == ["network parameters"]


# -- G5 and the rent --------------------------------------------------------------------------


@pytest.mark.parametrize("held", [0, 1, 5])
@pytest.mark.parametrize("present", [False, True])
def test_a_slot_is_free_again_when_nothing_is_left(held: int, present: bool) -> None:
    result = gates.reset(tensors_held=held, seed_present=present)
    expected = (["tensors in the optimiser"] if held else []) + (
        ["seeds in the slot"] if present else []
    )
    assert failed(result) == expected
    assert result.passed == (not expected)
    assert result.gate is Gate.G5_RESET


def rent(**changed: Any) -> float:
    plain: dict[str, Any] = {
        "cohort_parameters": 50,
        "network_parameters": 100,
        "flops": 150.0,
        "flops_before": 100.0,
        "rules": GateRules(price_per_parameter=0.1, price_per_flop=0.02),
    }
    return gates.rent(**{**plain, **changed})


def test_a_rent_by_hand() -> None:
    assert rent() == pytest.approx(0.1 * 0.5 + 0.02 * 0.5, rel=1e-12)
    assert rent(flops=None) == 0.05
    assert rent(flops_before=None) == 0.05
    assert rent(cohort_parameters=0, flops=100.0) == 0.0


def test_fewer_operations_than_before_are_no_discount() -> None:
    assert rent(flops=10.0) == rent(flops=100.0) == 0.05


@settings(deadline=None)
@given(parameters=st.integers(0, 10**9), more=st.integers(0, 10**9), network=st.integers(1, 10**9))
def test_a_larger_cohort_never_pays_less(parameters: int, more: int, network: int) -> None:
    low = rent(cohort_parameters=parameters, network_parameters=network)
    high = rent(cohort_parameters=parameters + more, network_parameters=network)
    assert 0.0 <= low <= high
