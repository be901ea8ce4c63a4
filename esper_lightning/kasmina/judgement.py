"""From an epoch's measurements to evidence, and from evidence to the gate a slot stands before."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from esper_lightning.kasmina import gates
from esper_lightning.kasmina.moment import Moment
from esper_lightning.kasmina.record import TRAINED_STAGES, EpochEvidence, SeedRecord, SlotRecord
from esper_lightning.kasmina.rules import GateRules, LifecycleRules
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.kasmina.trend import relative_gain
from esper_lightning.kasmina.watch import StepWatch
from esper_lightning.leyline import LIVE_STAGES, GateResult, SeedStage


def gather(slot: SeedSlot, watch: StepWatch, moment: Moment) -> EpochEvidence:
    """What the epoch told about a slot's seed. Waits for the device."""
    seen = watch.evidence[slot.path]
    ratio = noise = None
    outputs, again = slot.sample_output(slot.seed), slot.sample_output(slot.seed, draw=1)
    if outputs is not None and again is not None:
        produced, expected = (torch.linalg.vector_norm(tensor.float()) for tensor in outputs)
        ratio = float(produced / expected) if expected else None
        apart = torch.linalg.vector_norm(outputs[0].float() - again[0].float())
        noise = float(apart / produced) if apart else 0.0
    return EpochEvidence(
        stage=slot.record.stage,
        gradient_norm=seen.gradient_norm.mean(),
        gradient_spread=seen.gradient_norm.spread(),
        dropped=int(seen.dropped.total() or 0),
        steps=seen.dropped.count,
        output_ratio=ratio,
        loss=watch.loss.mean(),
        loss_spread=watch.loss.spread(),
        objective=moment.objective.value,
        noise=noise,
    )


def why_unfit(record: SlotRecord, rules: LifecycleRules) -> str:
    """Why a live seed is culled whatever its gate may say, empty if it is not."""
    seed = record.seed
    if seed is None or record.stage not in LIVE_STAGES:
        return ""
    if seed.quarantined:
        return f"quarantined: it disturbed the host {seed.isolation_violations} times"
    noise = seed.evidence[-1].noise if seed.evidence else None
    if noise is not None and noise > rules.gates.max_noise:
        return (
            f"quarantined: it draws random numbers in evaluation, its outputs on one sample differ "
            f"by {noise:.3g} of their norm ({rules.gates.max_noise:.3g} at most)"
        )
    return ""


def unreached(slots: Iterable[SeedSlot]) -> list[SeedSlot]:
    """Those whose seed was to learn in the epoch that was closed, its first, and got no gradient.

    A seed that takes no part is none of them.
    """
    found = []
    for slot in slots:
        seed = slot.record.seed
        trained = [e for e in seed.evidence if e.stage in TRAINED_STAGES] if seed else []
        if len(trained) == 1 and trained[0].is_unreached and slot.takes_part:
            found.append(slot)
    return found


class Verdict(NamedTuple):
    """A gate's answer; gain and rent where they were asked for."""

    gate: GateResult
    gain: float | None = None
    rent: float | None = None


def ask(
    slot: SeedSlot,
    *,
    cohort: Sequence[SeedRecord],
    history: Sequence[float | None],
    moment: Moment,
    network_parameters: int,
    rules: LifecycleRules,
    monitored: bool,
) -> Verdict:
    """Ask the gate that a live seed stands before. Changes nothing.

    Args:
        slot: with a live seed.
        cohort: records of all live seeds that were planted at the same boundary, this one included.
        history: the objective by epoch, this one last.
        moment: now.
        network_parameters: of the network as it stands.
        rules: of the lifecycle.
        monitored: the isolation monitor is on.
    """
    seed, mode = slot.record.seed, moment.objective.mode
    assert seed is not None
    assert slot.seed is not None
    match slot.record.stage:
        case SeedStage.TRAINING:
            return Verdict(gates.gradient_health(seed, rules.gates, monitored=monitored))
        case SeedStage.BLENDING:
            alpha = float(slot.alpha)
            return Verdict(gates.stability(seed, alpha=alpha, mode=mode, rules=rules.gates))
        case SeedStage.SHADOWING:
            return Verdict(gates.interface(seed, mode=mode, rules=rules.gates))
        case SeedStage.PROBATIONARY:
            gain = _gain(seed, slot.record.age, history, mode, rules.gates)
            rent = gates.rent(
                cohort_parameters=sum(member.num_parameters for member in cohort),
                network_parameters=min(member.network_parameters_before for member in cohort),
                flops=moment.flops,
                flops_before=seed.flops_before,
                rules=rules.gates,
            )
            result = gates.system_impact(
                seed,
                gain=gain,
                rent=rent,
                finite=moment.objective.name not in moment.not_finite,
                network_parameters=network_parameters,
                rules=rules.gates,
            )
            return Verdict(result, gain, rent)
        case _:
            result = gates.sanity(
                slot.seed,
                slot.sample_output(slot.seed),
                incubation=seed.incubation,
                network_parameters=network_parameters,
                rules=rules.gates,
            )
            return Verdict(result)


def _gain(
    seed: SeedRecord, age: int, history: Sequence[float | None], mode: str, rules: GateRules
) -> float | None:
    """The trend until planting, against the last ``rules.window`` epochs of probation."""
    before = history[: seed.planted_epoch + 1]
    after = list(history[seed.planted_epoch + 1 :])
    judged = min(rules.window, age)
    observed = [None] * (len(after) - judged) + after[len(after) - judged :]
    return relative_gain(before, observed, mode=mode, doubt=rules.doubt)
