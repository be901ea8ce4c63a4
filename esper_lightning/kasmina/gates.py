"""The gates, as pure functions from evidence to a result that carries every measured value."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from esper_lightning.kasmina.record import EpochEvidence, SeedRecord
from esper_lightning.kasmina.rules import GateRules
from esper_lightning.leyline import Comparison, Gate, GateResult, Incubation, Measurement, SeedStage


def _at_most(name: str, value: float | None, threshold: float, unit: str = "") -> Measurement:
    return Measurement(
        name=name, value=value, comparison=Comparison.AT_MOST, threshold=threshold, unit=unit
    )


def _at_least(name: str, value: float | None, threshold: float, unit: str = "") -> Measurement:
    return Measurement(
        name=name, value=value, comparison=Comparison.AT_LEAST, threshold=threshold, unit=unit
    )


def sanity(
    seed: nn.Module,
    output: tuple[Tensor, Tensor] | None,
    *,
    incubation: Incubation,
    network_parameters: int,
    rules: GateRules,
) -> GateResult:
    """G0, at germination: finite, of the right shape, within budget, and zero where it must be.

    Args:
        seed: the branch.
        output: its output on a sample of real data, beside the slot's; None when there is none.
        incubation: direct insertion asks for an output of exactly 0.
        network_parameters: of the whole network with the seed.
        rules: thresholds.
    """
    bad = sum(int((~torch.isfinite(p)).sum()) for p in seed.parameters())
    measured = [_at_most("non-finite parameters", bad, 0)]
    if output is None:
        measured.append(_at_most("non-finite outputs", None, 0))
    else:
        produced, expected = output
        wrong = float(produced.shape != expected.shape)
        measured.append(_at_most("outputs of another shape", wrong, 0))
        measured.append(_at_most("non-finite outputs", int((~torch.isfinite(produced)).sum()), 0))
        if incubation is Incubation.DIRECT:
            measured.append(_at_most("largest output at birth", float(produced.abs().max()), 0))
        elif bool(expected.any()):  # else the slot is zero as yet, as drawn, and has no size
            measured.append(
                _at_most("output ratio", _ratio(produced, expected), rules.max_output_ratio)
            )
    if rules.max_parameters is not None:
        measured.append(_at_most("network parameters", network_parameters, rules.max_parameters))
    return GateResult(gate=Gate.G0_SANITY, measurements=tuple(measured))


def gradient_health(seed: SeedRecord, rules: GateRules, *, monitored: bool = False) -> GateResult:
    """G1, leaving TRAINING: gradients arrive and are finite, and the host was never disturbed.

    Args:
        seed: its record.
        rules: thresholds.
        monitored: the isolation monitor looks at it; what it found is asked for.
    """
    last = _last(seed, SeedStage.TRAINING)
    norm = None if last is None else last.gradient_norm
    measured = [_arrived(last, rules)]
    if last is None or not last.is_unreached:
        measured.insert(0, _at_least("gradient norm", norm, rules.min_gradient_norm))
    if monitored:
        violations = seed.isolation_violations if seed.isolation_checks else None
        measured.append(_at_most("isolation violations", violations, 0))
    return GateResult(gate=Gate.G1_GRADIENT_HEALTH, measurements=tuple(measured))


def stability(seed: SeedRecord, *, alpha: float, mode: str, rules: GateRules) -> GateResult:
    """G2, leaving BLENDING: ramp complete, loss and gradient settled, nothing worse."""
    last = _last(seed, SeedStage.BLENDING)
    return GateResult(
        gate=Gate.G2_STABILITY,
        measurements=(
            _at_least("alpha", alpha, 1.0),
            _at_most(
                "gradient spread", last.gradient_spread if last else None, rules.max_gradient_spread
            ),
            _at_most("loss spread", last.loss_spread if last else None, rules.max_loss_spread),
            _at_most("regression", _regression(seed, last, mode), rules.max_regression, "relative"),
        ),
    )


def interface(seed: SeedRecord, *, mode: str, rules: GateRules) -> GateResult:
    """G3, leaving SHADOWING: nothing is worse, and the output is of a sane size."""
    last = _last(seed, SeedStage.SHADOWING)
    return GateResult(
        gate=Gate.G3_INTERFACE,
        measurements=(
            _at_most("regression", _regression(seed, last, mode), rules.max_regression, "relative"),
            _at_most("output ratio", last.output_ratio if last else None, rules.max_output_ratio),
            _noise(last, rules),
        ),
    )


def system_impact(
    seed: SeedRecord,
    *,
    gain: float | None,
    rent: float,
    finite: bool = True,
    network_parameters: int,
    rules: GateRules,
) -> GateResult:
    """G4, to FOSSILIZED: the cohort's gain over where the curve was heading pays its rent.

    Args:
        seed: its record.
        gain: of the cohort; from earlier epochs, where this one's objective is missing.
        rent: of the cohort.
        finite: this epoch's objective is not NaN or infinite.
        network_parameters: of the network as it stands.
        rules: thresholds.
    """
    last = _last(seed, SeedStage.PROBATIONARY)
    measured = [
        *([_at_least("gain", gain, rent, "relative")] if rules.judge_gain else []),
        *([] if finite else [_at_most("objectives that are not finite", 1, 0)]),
        _arrived(last, rules),
        _noise(last, rules),
    ]
    if rules.max_parameters is not None:
        measured.append(_at_most("network parameters", network_parameters, rules.max_parameters))
    return GateResult(gate=Gate.G4_SYSTEM_IMPACT, measurements=tuple(measured))


def reset(*, tensors_held: int, seed_present: bool) -> GateResult:
    """G5, leaving RESETTING: parameters, optimiser state and module are gone."""
    return GateResult(
        gate=Gate.G5_RESET,
        measurements=(
            _at_most("tensors in the optimiser", tensors_held, 0),
            _at_most("seeds in the slot", float(seed_present), 0),
        ),
    )


def rent(
    *,
    cohort_parameters: int,
    network_parameters: int,
    flops: float | None,
    flops_before: float | None,
    rules: GateRules,
) -> float:
    """The least relative gain that pays for a cohort.

    ``price_per_parameter * dP / P + price_per_flop * dF / F``, the second term only where both FLOP
    counts are known.
    """
    price = rules.price_per_parameter * cohort_parameters / max(network_parameters, 1)
    if flops is not None and flops_before:
        price += rules.price_per_flop * max(flops / flops_before - 1.0, 0.0)
    return price


def _last(seed: SeedRecord, stage: SeedStage) -> EpochEvidence | None:
    evidence: Sequence[EpochEvidence] = seed.since(stage)
    return evidence[-1] if evidence else None


def _noise(last: EpochEvidence | None, rules: GateRules) -> Measurement:
    noise = None if last is None else last.noise
    return _at_most("noise in evaluation", noise, rules.max_noise, "of its output")


def _arrived(last: EpochEvidence | None, rules: GateRules) -> Measurement:
    """How many gradients were not finite; where none ever came, that, and why it may be."""
    if last is not None and last.is_unreached:
        why = "(the slot's output is not used, or it runs under torch.no_grad)"
        return _at_least("steps in which a gradient reached the seed", 0, 1, why)
    dropped = last.dropped / last.steps if last is not None and last.steps else None
    return _at_most("dropped gradients", dropped, rules.max_dropped, "of steps")


def _regression(seed: SeedRecord, last: EpochEvidence | None, mode: str) -> float | None:
    before, now = seed.objective_at_entry, None if last is None else last.objective
    if before is None or now is None or before == 0:
        return None
    worse = now - before if mode == "min" else before - now
    return worse / abs(before)


def _ratio(produced: Tensor, expected: Tensor) -> float:
    ratio: Tensor = torch.linalg.vector_norm(produced.float()) / torch.linalg.vector_norm(
        expected.float()
    )
    return float(ratio)
