"""What a slot remembers: its topology, its lifecycle and its evidence, saved in its state_dict."""

from typing import Any

import msgspec

from esper_lightning.leyline import (
    BlendSchedule,
    CulledSeed,
    DecodeError,
    GateResult,
    GrownSeed,
    Incubation,
    ParameterValue,
    SeedStage,
    SlotShape,
    decode,
)

RECORD_VERSION = 1

TRAINED_STAGES = (
    SeedStage.TRAINING,
    SeedStage.BLENDING,
    SeedStage.SHADOWING,
    SeedStage.PROBATIONARY,
)
"""In which a live seed's parameters belong to the optimiser."""


class EpochEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one epoch told about one live seed.

    Attributes:
        stage: in which it was gathered.
        gradient_norm: mean L2 norm of the seed's gradient over the epoch's steps.
        gradient_spread: standard deviation of that norm over its mean.
        dropped: backward passes whose gradient was not finite, and that was not the host's fault.
        steps: backward passes.
        output_ratio: norm of the seed's output over the norm of the slot's, on a sample.
        loss: mean training loss of the network.
        loss_spread: standard deviation of the training loss over its mean.
        objective: the monitored validation metric.
        noise: by how much two outputs on one sample differ in evaluation, over their norm.
    """

    stage: SeedStage
    gradient_norm: float | None
    gradient_spread: float | None
    dropped: int
    steps: int
    output_ratio: float | None
    loss: float | None
    loss_spread: float | None
    objective: float | None
    noise: float | None = None

    @property
    def is_unreached(self) -> bool:
        """True where the network trained and no gradient came to a seed that was to learn."""
        seen = self.gradient_norm is not None or self.steps > 0
        return self.loss is not None and not seen and self.stage in TRAINED_STAGES


class SeedRecord(msgspec.Struct, kw_only=True):
    """A live seed (or one that is ramping out).

    Attributes:
        isolation_checks: how often the isolation monitor compared the host with and without it.
        isolation_violations: how often the host was not the same.
        quarantined: it takes no part in any pass; the next boundary culls it.
    """

    blueprint: str
    parameters: dict[str, ParameterValue]
    incubation: Incubation
    blend: BlendSchedule
    num_parameters: int
    planted_epoch: int
    planted_step: int
    rng_seed: int
    network_parameters_before: int
    flops_before: float | None
    objective_at_entry: float | None = None
    evidence: list[EpochEvidence] = []
    gate: GateResult | None = None
    gain: float | None = None
    rent: float | None = None
    random_state: dict[str, bytes] = {}
    isolation_checks: int = 0
    isolation_violations: int = 0
    quarantined: bool = False

    def since(self, stage: SeedStage) -> list[EpochEvidence]:
        """The evidence that was gathered in ``stage``."""
        return [evidence for evidence in self.evidence if evidence.stage is stage]


class SlotRecord(msgspec.Struct, kw_only=True):
    """Everything about a slot but its weights.

    Attributes:
        paused_at: optimiser step at which the seed was paused; None while it is not.
        ramp_start: optimiser step at which alpha began to move; None while it rests.
        ramp_from: alpha at that step, 0 when it rises, above 0 when it falls.
        quarantined: blueprints that are not planted here again.
    """

    version: int = RECORD_VERSION
    stage: SeedStage = SeedStage.UNKNOWN
    age: int = 0
    paused_at: int | None = None
    shape: SlotShape | None = None
    reason: str = ""
    seed: SeedRecord | None = None
    fossils: list[GrownSeed] = []
    culls: list[CulledSeed] = []
    num_planted: int = 0
    ramp_start: int | None = None
    ramp_from: float = 0.0
    mutates_input: bool = False
    quarantined: list[str] = []

    @property
    def paused(self) -> bool:
        """True while the seed's training and clocks stand still."""
        return self.paused_at is not None


class _Version(msgspec.Struct):
    """Of a record whose other fields may be anything."""

    version: Any = None


def read_record(data: bytes, *, slot: str) -> SlotRecord:
    """A slot's record from its JSON, the version first.

    Args:
        data: what :func:`~esper_lightning.leyline.encode` made of it.
        slot: whose it is, for the error.

    Raises:
        DecodeError: it is of another version, whatever else is in it; or not a record.
    """
    what = f"record of slot {slot!r}"
    read: _Version = decode(data, _Version, what=what)
    found = read.version
    if found != RECORD_VERSION:
        which = "no version" if found is None else f"version {found!r}"
        raise DecodeError(
            f"{what} has {which}; this release reads version {RECORD_VERSION}; load it with the "
            f"release that saved it, which its run's summary.json names"
        )
    return decode(data, SlotRecord, what=what)
