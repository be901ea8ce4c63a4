"""What an epoch leaves behind: sums on the device, and a record that survives a checkpoint."""

import math
import statistics

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_lightning.kasmina.evidence import Running
from esper_lightning.kasmina.record import EpochEvidence, SeedRecord, SlotRecord
from esper_lightning.leyline import (
    BlendSchedule,
    Comparison,
    CulledSeed,
    FeatureKind,
    FeatureMap,
    Gate,
    GateResult,
    GrownSeed,
    Incubation,
    Measurement,
    SeedStage,
    SlotShape,
    decode,
    encode,
)

positive = st.lists(st.floats(0.125, 1024, width=32), min_size=1, max_size=20)


def observed(values: list[float]) -> Running:
    running = Running()
    for value in values:
        running.add(torch.tensor(value))
    return running


def epoch(stage: SeedStage, **found: object) -> EpochEvidence:
    nothing = EpochEvidence(
        stage=stage,
        gradient_norm=None,
        gradient_spread=None,
        dropped=0,
        steps=0,
        output_ratio=None,
        loss=None,
        loss_spread=None,
        objective=None,
    )
    return msgspec.structs.replace(nothing, **found)


def seed_record() -> SeedRecord:
    return SeedRecord(
        blueprint="conv",
        parameters={"width": 8, "bias": True, "scale": 0.1},
        incubation=Incubation.STRAIGHT_THROUGH,
        blend=BlendSchedule(num_steps=7),
        num_parameters=12,
        planted_epoch=1,
        planted_step=30,
        rng_seed=2**63 - 1,
        network_parameters_before=100,
        flops_before=None,
    )


def test_nothing_observed_is_missing() -> None:
    running = Running()
    assert (running.count, running.mean(), running.spread(), running.total()) == (
        0,
        None,
        None,
        None,
    )


@settings(deadline=None)
@given(positive)
def test_mean_spread_and_total(values: list[float]) -> None:
    running = observed(values)
    mean = statistics.fmean(values)
    assert running.count == len(values)
    assert running.mean() == pytest.approx(mean, rel=1e-12)
    assert running.total() == pytest.approx(math.fsum(values), rel=1e-12)
    assert running.spread() == pytest.approx(statistics.pstdev(values) / mean, rel=1e-4, abs=1e-6)


def test_a_spread_by_hand_and_of_what_has_none() -> None:
    assert observed([1.0, 3.0]).spread() == 0.5
    assert observed([-1.0, -3.0]).spread() == 0.5
    assert observed([2.0]).spread() == 0.0
    assert observed([1.0, -1.0]).spread() is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(value: float) -> None:
    running = observed([1.0, value, 2.0])
    mean, spread = running.mean(), running.spread()
    assert mean is not None
    assert not math.isfinite(mean)
    assert spread is None or math.isnan(spread)


def test_observing_keeps_nothing_of_the_graph_and_shares_no_memory() -> None:
    running = Running()
    value = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    running.add(value * 1.0)
    running.add(value)
    with torch.no_grad():
        value.fill_(100.0)
    assert running.mean() == 2.0
    assert running._sum is not None
    assert not running._sum.requires_grad


def test_evidence_belongs_to_the_stage_in_which_it_was_gathered() -> None:
    seed = seed_record()
    seed.evidence = [
        epoch(SeedStage.TRAINING, loss=1.0),
        epoch(SeedStage.BLENDING, loss=2.0),
        epoch(SeedStage.BLENDING, loss=3.0),
    ]
    assert [found.loss for found in seed.since(SeedStage.BLENDING)] == [2.0, 3.0]
    assert seed.since(SeedStage.SHADOWING) == []


def test_a_record_survives_a_checkpoint() -> None:
    vector = FeatureMap(FeatureKind.VECTOR, (5,))
    measurement = Measurement(name="gain", value=0.1, comparison=Comparison.AT_LEAST, threshold=0.2)
    seed = seed_record()
    seed.objective_at_entry, seed.gain, seed.rent = 0.3, 0.1, 0.2
    seed.evidence = [epoch(SeedStage.TRAINING, loss=0.1, steps=3)]
    seed.gate = GateResult(gate=Gate.G4_SYSTEM_IMPACT, measurements=(measurement,))
    seed.random_state = {"cpu": torch.get_rng_state().numpy().tobytes()}
    record = SlotRecord(
        stage=SeedStage.PROBATIONARY,
        age=2,
        paused_at=17,
        shape=SlotShape(vector, vector),
        reason="why",
        seed=seed,
        fossils=[GrownSeed(slot="a", blueprint="mlp", parameters={"ratio": 2.0})],
        culls=[
            CulledSeed(
                slot="a",
                blueprint="conv",
                parameters={},
                planted_epoch=0,
                culled_epoch=1,
                reason="no gain",
            )
        ],
        num_planted=3,
        ramp_start=5,
        ramp_from=0.25,
        mutates_input=True,
    )
    again: SlotRecord = decode(encode(record), SlotRecord)
    assert again == record
    assert again.paused
    assert not SlotRecord().paused


def test_records_share_no_defaults() -> None:
    one, other = SlotRecord(), SlotRecord()
    one.fossils.append(GrownSeed(slot="a", blueprint="conv"))
    assert other.fossils == []
    first, second = seed_record(), seed_record()
    first.evidence.append(epoch(SeedStage.TRAINING))
    assert second.evidence == []
