"""What a controller sees at a boundary. Missing is None or absent: never 0, never "healthy"."""

import msgspec

from esper_lightning.leyline.commands import ParameterValue
from esper_lightning.leyline.gates import GateResult
from esper_lightning.leyline.shapes import SlotShape
from esper_lightning.leyline.stages import CommandKind, SeedStage


class FossilState(msgspec.Struct, frozen=True, kw_only=True):
    """A seed that became part of the host."""

    blueprint: str
    parameters: dict[str, ParameterValue]
    num_parameters: int
    planted_epoch: int
    fossilized_epoch: int


class SeedState(msgspec.Struct, frozen=True, kw_only=True):
    """One slot and its live seed, if any.

    Attributes:
        slot: module path.
        stage: where it stands.
        paused: its clocks and its training are stopped.
        age: epochs in this stage.
        seed_age: epochs since the live seed was planted, None without one.
        shape: feature maps; None until the first forward.
        base_parameters: parameters of the wrapped module.
        pressure: root mean square of the wrapped module's gradient over the epoch, per parameter:
            how much the loss still pulls here; None where it was not measured.
        blueprint: of the live seed, or empty.
        parameters: of the live seed's constructor.
        num_parameters: of the live seed.
        alpha: weight of the live seed's output, 0 to 1.
        gradient_norm: mean L2 norm of the live seed's gradient over the epoch.
        dropped_gradients: steps of the epoch whose seed gradient was not finite and was dropped.
        output_ratio: norm of the seed's output over the norm of the slot's output.
        gain: estimated relative improvement of the objective against where its curve was heading
            before the seed's cohort was planted (1 = all of it).
        rent: the least gain that pays for the seed's cohort, same unit.
        cohort: epoch at which the seed's cohort was planted.
        gate: the last answer of the gate it stands before.
        legal: commands it may be given now.
        fossils: what has grown here.
        num_culls: seeds culled here so far.
        isolation_violations: times the isolation monitor found that the live seed disturbed its
            host; None where it has not looked.
        quarantined: blueprints that are not planted here again, because they did harm here.
        reason: why it is where it is, in words.
    """

    slot: str
    stage: SeedStage
    paused: bool = False
    age: int = 0
    seed_age: int | None = None
    shape: SlotShape | None = None
    base_parameters: int = 0
    pressure: float | None = None
    blueprint: str = ""
    parameters: dict[str, ParameterValue] = {}
    num_parameters: int = 0
    alpha: float = 0.0
    gradient_norm: float | None = None
    dropped_gradients: int | None = None
    output_ratio: float | None = None
    gain: float | None = None
    rent: float | None = None
    cohort: int | None = None
    gate: GateResult | None = None
    legal: tuple[CommandKind, ...] = ()
    fossils: tuple[FossilState, ...] = ()
    num_culls: int = 0
    isolation_violations: int | None = None
    quarantined: tuple[str, ...] = ()
    reason: str = ""


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """The validation metric that gates and policies look at.

    Attributes:
        name: as logged, for example ``val/loss``.
        mode: ``min`` or ``max``.
        value: this epoch's, None when validation did not run or did not log it.
    """

    name: str
    mode: str = "min"
    value: float | None = None


class LayerState(msgspec.Struct, frozen=True, kw_only=True):
    """A module of the host that has parameters of its own, or is a slot.

    Attributes:
        path: in the host, as it is without slots.
        module: its class name.
        num_parameters: of the module, what it holds included, without what has grown.
        reads: paths of the layers whose output it computes from, without another of them between;
            empty for the first ones.
    """

    path: str
    module: str
    num_parameters: int
    reads: tuple[str, ...] = ()


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What the run is trained on.

    Attributes:
        device: ``cpu``, ``cuda``, ``mps``.
        processes: that train together.
        precision: as the Trainer calls it.
        memory_bytes: of one device; None where it does not tell.
    """

    device: str
    processes: int = 1
    precision: str = "32-true"
    memory_bytes: int | None = None


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """How what runs beside training stands. It depends on clock and machine, not on the seed.

    Attributes:
        step_s: mean seconds of an optimiser step in this epoch.
        boundary_s: seconds of the last boundary.
        compiled: blueprints that Tezzeret holds ready.
        bus: state of the bus's breaker: ``closed``, ``open`` or ``half_open``.
        waiting: messages in the outbox.
        dropped: telemetry that was dropped so far.

    What is not there or was not measured is None.
    """

    step_s: float | None = None
    boundary_s: float | None = None
    compiled: tuple[str, ...] | None = None
    bus: str | None = None
    waiting: int | None = None
    dropped: int | None = None


class SystemState(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="state"):
    """Everything a controller may look at, at one epoch boundary. Never the test split.

    Attributes:
        run_id: the run.
        epoch: 0-based epoch that has just ended.
        max_epochs: how many the run will have, None when it is open-ended.
        global_step: optimiser steps so far.
        steps_per_epoch: optimiser steps of the last epoch.
        objective: what is optimised.
        metrics: train and validation metrics of this epoch.
        slots: every slot, in the order of the configuration.
        host_parameters: of the network before any growth.
        num_parameters: of the network as it stands, fossils and live seeds included.
        host_flops: training FLOPs per sample of the network before any growth, None until counted.
        flops: training FLOPs per sample of the network as it was trained in this epoch.
        total_flops: training FLOPs spent so far.
        layers: of the host, in the order in which they were first called; empty until they were.
        hardware: what it is trained on.
        learning_rate: of the host's first parameter group, as it stands at the boundary.
        rollbacks: epochs that the governor undid so far; None without a governor.
        catalogue: SHA-256 of the names and versions of the blueprints that could be planted.
        services: None where the run is deterministic: then nothing decides by them.
    """

    run_id: str
    epoch: int
    max_epochs: int | None
    global_step: int
    steps_per_epoch: int
    objective: Objective
    metrics: dict[str, float]
    slots: tuple[SeedState, ...]
    host_parameters: int
    num_parameters: int
    host_flops: float | None = None
    flops: float | None = None
    total_flops: float | None = None
    layers: tuple[LayerState, ...] = ()
    hardware: Hardware | None = None
    learning_rate: float | None = None
    rollbacks: int | None = None
    catalogue: str | None = None
    services: Services | None = None

    def slot(self, path: str) -> SeedState:
        """The state of one slot.

        Raises:
            KeyError: there is no such slot.
        """
        for slot in self.slots:
            if slot.slot == path:
                return slot
        raise KeyError(path)
