"""Turns Leyline records into metrics."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from esper_lightning.leyline import (
    Decision,
    Event,
    FieldReport,
    Intervention,
    InvalidArgument,
    PolicyChanged,
    Raised,
    RunEnded,
    RunStarted,
    SeedState,
    Services,
    StageChanged,
    SystemState,
    TelemetryPacket,
)
from esper_lightning.nissa.metrics import names

if TYPE_CHECKING:
    from esper_lightning.nissa.metrics.registry import MetricsRegistry

FORGED_MESSAGE = "oona_forged_message"
"""Name of the alert that a forged message raises on the bus."""

OUTBOX = "outbox"
"""The queue of a run's own messages that the server has not acknowledged."""


class NissaIngestor:
    """Counts what the records of one run tell.

    Records may come from the run itself, from the bus, or from a journal: they give the same
    metrics. What a run that was resumed tells a second time is counted a second time, as it was
    done.

    Args:
        registry: where the metrics are.
    """

    def __init__(self, registry: "MetricsRegistry") -> None:
        self.registry = registry
        self._flops = 0.0
        self._dropped = self._published = self._unanswered = 0
        self._compilations: tuple[int, int, float] = (0, 0, 0.0)
        self._violations: dict[str, tuple[int | None, int]] = {}
        self._alive: set[str] = set()

    def take(self, record: Event | TelemetryPacket | Raised) -> None:
        """Count one record.

        Raises:
            InvalidArgument: it is no record of a run.
        """
        tag = type(record).__struct_config__.tag
        if not tag:
            raise InvalidArgument(f"{type(record).__name__} is no record of a run")
        if isinstance(record, RunStarted):
            self._start(record)
        elif record.run_id != self.registry.run and not isinstance(record, Raised):
            self._begin(record.run_id)
        self.registry.counter(names.EVENTS, str(tag)).inc()
        if isinstance(record, SystemState):
            self._state(record)
        elif isinstance(record, StageChanged):
            self._move(record)
        elif isinstance(record, Decision):
            self._decision(record)
        elif isinstance(record, Intervention):
            self.registry.counter(names.INTERVENTIONS, record.level.value).inc()
            if record.restored is not None:
                self.registry.counter(names.ROLLBACKS).inc()
        elif isinstance(record, FieldReport):
            self.registry.counter(names.REPORTS, record.outcome.value).inc()
        elif isinstance(record, PolicyChanged):
            self.registry.counter(names.POLICY_CHANGES, record.step.value).inc()
            if record.after is not None:
                self.registry.gauge(names.POLICY_VERSION).set(record.after)
        elif isinstance(record, RunEnded):
            self._end(record)
        elif isinstance(record, Raised) and record.name == FORGED_MESSAGE:
            self.registry.counter(names.REJECTED_SIGNATURES).inc()

    def take_services(self, services: Services) -> None:
        """Count how what runs beside training stands; None is not told."""
        registry = self.registry
        if services.waiting is not None:
            registry.gauge(names.QUEUE_DEPTH, OUTBOX).set(services.waiting)
        if services.dropped is not None:
            registry.counter(names.DROPPED_MESSAGES).inc(max(0, services.dropped - self._dropped))
            self._dropped = services.dropped
        if services.bus is not None:
            registry.gauge(names.BREAKER_OPEN).set(services.bus == "open")

    def take_published(self, put: int) -> None:
        """Tell how many messages the run's publisher was given so far."""
        self.registry.counter(names.PUBLISHED_MESSAGES).inc(max(0, put - self._published))
        self._published = put

    def take_unanswered(self, boundaries: int) -> None:
        """Tell at how many boundaries so far a controller elsewhere gave no answer in time."""
        self.registry.counter(names.UNANSWERED).inc(max(0, boundaries - self._unanswered))
        self._unanswered = boundaries

    def take_compilations(
        self, ways: Mapping[str, int], *, retries: int, fallbacks: int, seconds: float
    ) -> None:
        """Tell how branches run.

        Args:
            ways: branches by how they run, such as ``compiled`` and ``eager``.
            retries: compilations that had to be tried again so far.
            fallbacks: calls that ran eager instead of compiled so far.
            seconds: that compiling took so far.
        """
        for way, number in ways.items():
            self.registry.gauge(names.BRANCHES, way).set(number)
        told = (retries, fallbacks, seconds)
        counters = (names.COMPILE_RETRIES, names.FALLBACKS, names.COMPILE_SECONDS)
        for metric, now, before in zip(counters, told, self._compilations, strict=True):
            self.registry.counter(metric).inc(max(0, now - before))
        self._compilations = told

    def take_queue(self, queue: str, waiting: int, dead_letters: int) -> None:
        """Tell one stream of the bus.

        Args:
            queue: role of the stream.
            waiting: messages that its slowest group of readers has not acknowledged.
            dead_letters: of the stream.
        """
        self.registry.gauge(names.QUEUE_DEPTH, queue).set(waiting)
        self.registry.gauge(names.DEAD_LETTERS, queue).set(dead_letters)

    # -- inside -----------------------------------------------------------------------------------

    def _begin(self, run: str) -> None:
        self.registry.name_run(run)
        self._flops = 0.0
        self._dropped = self._published = self._unanswered = 0
        self._compilations = (0, 0, 0.0)
        self._violations.clear()
        self._alive.clear()

    def _start(self, record: RunStarted) -> None:
        if record.run_id != self.registry.run:
            self._begin(record.run_id)
        self.registry.gauge(names.RUN_ACTIVE).set(1)
        self.registry.gauge(names.HOST_PARAMETERS).set(record.host_parameters)

    def _end(self, record: RunEnded) -> None:
        self.registry.gauge(names.RUN_ACTIVE).set(0)
        outcome = "finished" if record.outcome == "finished" else "failed"
        self.registry.counter(names.RUNS_ENDED, outcome).inc()

    def _move(self, record: StageChanged) -> None:
        self.registry.counter(names.STAGE_CHANGES, record.after.name.lower()).inc()
        if record.gate is not None:
            passed = "true" if record.gate.passed else "false"
            self.registry.counter(names.GATES, record.gate.gate.value, passed).inc()

    def _decision(self, record: Decision) -> None:
        self.registry.counter(names.DECISIONS, record.command.kind.value).inc()
        if record.refused:
            self.registry.counter(names.REFUSALS).inc()
        if record.policy_version is not None:
            self.registry.gauge(names.POLICY_VERSION).set(record.policy_version)
        if record.risk is not None:
            self.registry.gauge(names.RISK).set(record.risk.level)
            self.registry.gauge(names.CONSERVATIVE).set(record.risk.conservative)

    def _state(self, record: SystemState) -> None:
        registry = self.registry
        registry.counter(names.EPOCHS).inc()
        registry.gauge(names.EPOCH).set(record.epoch)
        registry.gauge(names.PARAMETERS).set(record.num_parameters)
        registry.gauge(names.HOST_PARAMETERS).set(record.host_parameters)
        for metric, value in (
            (names.OBJECTIVE, record.objective.value),
            (names.LEARNING_RATE, record.learning_rate),
        ):
            if value is not None:
                registry.gauge(metric).set(value)
        if record.total_flops is not None:
            registry.counter(names.FLOPS).inc(max(0.0, record.total_flops - self._flops))
            self._flops = max(self._flops, record.total_flops)
        self._slots(record.slots)
        if record.services is not None:
            self.take_services(record.services)

    def _slots(self, slots: tuple[SeedState, ...]) -> None:
        stages = dict.fromkeys(names.STAGE_NAMES, 0)
        alive: set[str] = set()
        for slot in slots:
            stages[slot.stage.name.lower()] += 1
            self._violate(slot)
            if slot.dropped_gradients:
                self.registry.counter(names.DROPPED_GRADIENTS).inc(slot.dropped_gradients)
            if slot.seed_age is not None and len(alive) < names.MAX_SLOTS:
                alive.add(slot.slot)
                self.registry.gauge(names.SEED_ALPHA, slot.slot).set(slot.alpha)
                self.registry.gauge(names.SEED_AGE, slot.slot).set(slot.seed_age)
        for gone in self._alive - alive:
            self.registry.drop(names.SEED_ALPHA, gone)
            self.registry.drop(names.SEED_AGE, gone)
        self._alive = alive
        for stage, number in stages.items():
            self.registry.gauge(names.SLOTS, stage).set(number)

    def _violate(self, slot: SeedState) -> None:
        """Count what is new: a slot tells how often its live seed did it so far."""
        if slot.isolation_violations is None:
            return
        cohort, before = self._violations.get(slot.slot, (None, 0))
        if cohort != slot.cohort or slot.isolation_violations < before:
            before = 0
        if slot.isolation_violations > before:
            self.registry.counter(names.ISOLATION_VIOLATIONS).inc(
                slot.isolation_violations - before
            )
        self._violations[slot.slot] = (slot.cohort, slot.isolation_violations)
