"""``summary.json``: what a run reached and what it cost; everything that compares runs reads it."""

import msgspec

from esper_lightning.leyline.commands import ParameterValue


class GrownSeed(msgspec.Struct, frozen=True, kw_only=True):
    """A branch that is part of the network.

    Slot, blueprint and parameters alone say what a static network of the same shape begins with.
    """

    slot: str
    blueprint: str
    parameters: dict[str, ParameterValue] = {}
    num_parameters: int = 0
    planted_epoch: int = -1
    fossilized_epoch: int = -1
    reason: str = ""


class CulledSeed(msgspec.Struct, frozen=True, kw_only=True):
    """A seed that was removed."""

    slot: str
    blueprint: str
    parameters: dict[str, ParameterValue]
    planted_epoch: int
    culled_epoch: int
    reason: str


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        schema: version of this record.
        run_id: the run; ``events.jsonl`` beside it has the same.
        outcome: ``finished`` or ``failed: <error>``.
        seed: the run's seed, None when it was not seeded.
        host, policy, incubation: names.
        epochs, steps: trained.
        validation, test: metrics of the final network, each on its own split.
        host_parameters, parameters: before and after growth.
        host_flops_per_sample, flops_per_sample: of one training sample, before and after growth.
        host_training_flops: what the same steps would have cost the host alone.
        training_flops: what they did cost.
        wall_s: training time in seconds.
        grown, culled: what became of every seed.
        versions: of Python and the packages that matter.
        config_digest: SHA-256 of the composed configuration, empty when there was none.
    """

    schema: int = 1
    run_id: str
    outcome: str
    seed: int | None
    host: str
    policy: str
    incubation: str
    epochs: int
    steps: int
    validation: dict[str, float]
    test: dict[str, float]
    host_parameters: int
    parameters: int
    host_flops_per_sample: float | None
    flops_per_sample: float | None
    host_training_flops: float | None
    training_flops: float | None
    wall_s: float
    grown: tuple[GrownSeed, ...]
    culled: tuple[CulledSeed, ...]
    versions: dict[str, str]
    config_digest: str = ""
