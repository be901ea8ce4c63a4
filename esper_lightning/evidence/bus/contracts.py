"""Every message that travels: what it takes to build, pack, seal and read it, and its bytes."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec

from esper_lightning.evidence.bus.servers import KEY
from esper_lightning.evidence.report import table
from esper_lightning.leyline import (
    AdaptationCommand,
    AlarmLevel,
    Answer,
    CommandKind,
    Comparison,
    Decision,
    EventEnvelope,
    FieldReport,
    Gate,
    GateResult,
    Intervention,
    Measurement,
    Objective,
    Outcome,
    PolicyChanged,
    PolicyStep,
    PolicyUpdate,
    Proposal,
    Question,
    Raised,
    RunEnded,
    RunStarted,
    SeedStage,
    SeedState,
    Severity,
    Signer,
    StageChanged,
    SystemState,
    TelemetryPacket,
    pack,
    seal,
    unpack,
    unseal,
)
from esper_lightning.oona import ROUTES

RUN, SLOTS = "20261125-140000-ab12", ("features.0", "features.1", "features.2", "features.3")
_BLUEPRINT = "parallel_conv"
_LEGAL = (CommandKind.CULL, CommandKind.PAUSE)
_METRICS = ("train/loss", "train/acc", "val/loss", "val/acc", "val/f1", "val/ece", "lr", "grad")


def report(number: int = 0) -> FieldReport:
    """A message that is kept."""
    return FieldReport(
        id=str(number),
        run_id=RUN,
        command_id=f"7-{number}",
        slot=SLOTS[2],
        blueprint=_BLUEPRINT,
        kind=CommandKind.GERMINATE,
        first_epoch=8,
        last_epoch=11,
        outcome=Outcome.SUCCESS,
        deltas={"val/loss": -0.013, "val/acc": 0.004},
        policy="heuristic",
        reason="val/loss is lower than its curve promised",
    )


def packet(number: int = 0) -> TelemetryPacket:
    """A message that may be dropped, and a small one."""
    return TelemetryPacket(run_id=RUN, epoch=0, step=number, values={"step_seconds": 0.0123})


def state() -> SystemState:
    """4 seeds and 8 metrics."""
    return SystemState(
        run_id=RUN,
        epoch=7,
        max_epochs=40,
        global_step=371,
        steps_per_epoch=53,
        objective=Objective(name="val/loss", value=0.312),
        metrics=dict.fromkeys(_METRICS, 0.312),
        slots=tuple(_seed(slot) for slot in SLOTS),
        host_parameters=4000,
        num_parameters=8800,
        host_flops=1e6,
        flops=2.2e6,
        total_flops=1e9,
    )


def _seed(slot: str) -> SeedState:
    return SeedState(
        slot=slot,
        stage=SeedStage.TRAINING,
        age=2,
        seed_age=3,
        base_parameters=1160,
        pressure=0.00123,
        blueprint=_BLUEPRINT,
        parameters={"expansion": 1.0},
        num_parameters=1200,
        alpha=0.5,
        gradient_norm=0.7,
        output_ratio=0.1,
        gain=0.03,
        rent=0.01,
        cohort=4,
        legal=_LEGAL,
    )


def _command() -> AdaptationCommand:
    return AdaptationCommand(
        id="7-0",
        run_id=RUN,
        kind=CommandKind.GERMINATE,
        slot=SLOTS[2],
        blueprint=_BLUEPRINT,
        parameters={"expansion": 1.0},
        reason="the loss pulls hardest here",
    )


def _gate() -> GateResult:
    gradient = Measurement(
        name="gradient_norm", value=0.7, comparison=Comparison.AT_LEAST, threshold=1e-6
    )
    return GateResult(gate=Gate.G1_GRADIENT_HEALTH, measurements=(gradient,))


EXAMPLES: dict[str, Callable[[], msgspec.Struct]] = {
    "run_started": lambda: RunStarted(
        run_id=RUN,
        slots=SLOTS,
        host_parameters=4000,
        max_epochs=40,
        versions={"esper_lightning": "1.0.0", "torch": "2.13.0"},
    ),
    "stage_changed": lambda: StageChanged(
        run_id=RUN,
        epoch=7,
        step=371,
        slot=SLOTS[2],
        before=SeedStage.GERMINATED,
        after=SeedStage.TRAINING,
        blueprint=_BLUEPRINT,
        num_parameters=1200,
        gate=_gate(),
    ),
    "decision": lambda: Decision(
        run_id=RUN, epoch=7, policy="heuristic", command=_command(), mask=_LEGAL
    ),
    "state": state,
    "policy_changed": lambda: PolicyChanged(
        run_id=RUN,
        epoch=12,
        policy="learned",
        step=PolicyStep.INSTALLED,
        before=3,
        after=4,
        offered=4,
        reason="it decided well on 32 recorded boundaries",
    ),
    "intervention": lambda: Intervention(
        run_id=RUN,
        epoch=7,
        step=371,
        level=AlarmLevel.SEVERE,
        alarm="the loss is 16.2 times its running mean",
        suspects=SLOTS[:1],
        restored=6,
    ),
    "run_ended": lambda: RunEnded(run_id=RUN, epoch=39, step=2120, outcome="finished"),
    "report": report,
    "telemetry": packet,
    "policy": lambda: PolicyUpdate(
        name="learned", version=3, digest="a" * 64, reference="learned@3", reason="it is better"
    ),
    "alert": lambda: Raised(
        run_id=RUN,
        name="kasmina_isolation_violation",
        severity=Severity.CRITICAL,
        text="the seed of features.2 disturbs its host: cull it",
        values={"violations": 3.0},
    ),
    "question": lambda: Question(
        run_id=RUN, attempt="0f" * 8, epoch=7, deadline_s=2.0, state=state()
    ),
    "answer": lambda: Answer(
        run_id=RUN,
        attempt="0f" * 8,
        epoch=7,
        policy="heuristic",
        policy_version=3,
        choices=(
            Proposal(
                kind=CommandKind.GERMINATE,
                slot=SLOTS[2],
                blueprint=_BLUEPRINT,
                reason="the loss pulls hardest here",
            ),
        ),
    ),
}
"""One of each kind in ``MESSAGES``, built anew."""


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of message. Times are medians, in microseconds.

    Attributes:
        kind: which.
        build_us: to make the message.
        pack_us: to pack it.
        both_us: to make and pack it.
        seal_us: to pack its envelope and sign that.
        unseal_us: to verify that and read the envelope.
        unpack_us: to read it.
        packed_bytes: of the message.
        sealed_bytes: of what travels.
    """

    kind: str
    build_us: float
    pack_us: float
    both_us: float
    seal_us: float
    unseal_us: float
    unpack_us: float
    packed_bytes: int
    sealed_bytes: int


def measure(kind: str, *, repeats: int) -> Contract:
    """One kind, ``repeats`` times."""
    build, way, signer = EXAMPLES[kind], ROUTES[kind], Signer(KEY)
    message = build()
    packed = pack(message)
    envelope = EventEnvelope(
        id="0f" * 16,
        kind=kind,
        source=RUN,
        priority=way.priority,
        created_at=time.time(),
        ttl_s=way.ttl_s,
        payload=packed,
    )
    stream = way.role.value
    sealed = seal(envelope, signer, stream=stream)

    def typical(act: Callable[[], Any]) -> float:
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            act()
            seconds.append(time.perf_counter() - began)
        return 1e6 * median(seconds)

    return Contract(
        kind=kind,
        build_us=typical(build),
        pack_us=typical(lambda: pack(message)),
        both_us=typical(lambda: pack(build())),
        seal_us=typical(lambda: seal(envelope, signer, stream=stream)),
        unseal_us=typical(lambda: unseal(sealed, signer, stream=stream)),
        unpack_us=typical(lambda: unpack(packed, type(message))),
        packed_bytes=len(packed),
        sealed_bytes=len(sealed),
    )


def render(found: list[Contract]) -> str:
    """A Markdown table."""
    header = ["message", "build", "pack", "both", "seal", "unseal", "unpack", "packed", "sealed"]
    rows = []
    for each in found:
        making = (each.build_us, each.pack_us, each.both_us)
        travelling = (each.seal_us, each.unseal_us, each.unpack_us)
        times = [f"{time_us:.1f}" for time_us in (*making, *travelling)]
        rows.append([each.kind, *times, str(each.packed_bytes), str(each.sealed_bytes)])
    return f"{table(header, rows)}\n\nMicroseconds, and bytes in the last two columns."
