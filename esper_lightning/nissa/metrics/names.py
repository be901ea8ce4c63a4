"""Every metric that a run tells, by name: what it means, its labels, its buckets.

Names follow the conventions of Prometheus: base units, ``_total`` for what only rises, ``_ratio``
for 0 to 1. Labels are bounded: by an enumeration of Leyline, or by the slots of one network, of
which :data:`MAX_SLOTS` have a series of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from esper_lightning.leyline import InvalidArgument, SeedStage

CONSTANT_LABELS = ("run", "rank")
"""Labels of every series: id of the run, and number of the process that tells it."""

MAX_SLOTS = 256
"""Slots that have series of their own; what is of others is not told by slot."""

STAGE_NAMES = tuple(stage.name.lower() for stage in SeedStage)
"""Values of the label ``stage``."""

STEP_OBJECTIVE_S = 0.018
"""A step that is no longer is fast, whatever the network: the edge of a bucket."""


class Kind(str, Enum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is scraped.
        kind: what it is.
        text: what it means, for the scrape's ``HELP`` line.
        labels: beside :data:`CONSTANT_LABELS`.
        buckets: upper edges of a histogram, in the metric's unit, rising.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, text=text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, text=text, labels=labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, text=text, buckets=buckets)


STEP_DURATION = _histogram(
    "tolaria_step_duration_seconds",
    "Duration of a training step, from the start of its batch to its end.",
    (0.001, 0.0025, 0.005, 0.01, STEP_OBJECTIVE_S, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
BOUNDARY_DURATION = _histogram(
    "tolaria_boundary_duration_seconds",
    "Time between the last step of an epoch and the first of the next, validation included.",
    (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
STEPS = _counter("tolaria_steps_total", "Training steps that were timed.")
SLOW_STEPS = _counter(
    "tolaria_slow_steps_total", "Training steps that took longer than the run's step budget."
)
STEP_BUDGET = _gauge(
    "tolaria_step_budget_seconds", "Duration above which a training step counts as slow."
)
BATCHES = _counter("tolaria_batches_total", "Batches of training and evaluation that were done.")
RUN_ACTIVE = _gauge("tolaria_run_active", "1 while the run trains, 0 before and after.")
RUNS_ENDED = _counter("tolaria_runs_ended_total", "Runs that ended.", "outcome")
EPOCHS = _counter("tolaria_epochs_total", "Epochs that ended.")
EPOCH = _gauge("tolaria_epoch", "Number of the epoch that ended last, from 0.")
OBJECTIVE = _gauge("tolaria_objective", "The metric that gates and policies look at.")
LEARNING_RATE = _gauge("tolaria_learning_rate", "Of the host's first parameter group.")
FLOPS = _counter("tolaria_training_flops_total", "Floating-point operations spent on training.")
INTERVENTIONS = _counter(
    "tolaria_interventions_total", "Times the governor stepped in, by what it did.", "level"
)
ROLLBACKS = _counter("tolaria_rollbacks_total", "Epochs that the governor undid.")

PARAMETERS = _gauge("kasmina_parameters", "Parameters of the network, grown ones included.")
HOST_PARAMETERS = _gauge("kasmina_host_parameters", "Parameters of the network before any growth.")
SLOTS = _gauge("kasmina_slots", "Slots by the stage in which they are.", "stage")
SEED_ALPHA = _gauge(
    "kasmina_seed_alpha_ratio", "Weight of the output of a slot's live seed.", "slot"
)
SEED_AGE = _gauge("kasmina_seed_age_epochs", "Epochs since a slot's live seed was planted.", "slot")
STAGE_CHANGES = _counter("kasmina_stage_changes_total", "Moves of slots into a stage.", "stage")
GATES = _counter("kasmina_gate_answers_total", "Answers of gates to moves.", "gate", "passed")
ISOLATION_VIOLATIONS = _counter(
    "kasmina_isolation_violations_total", "Times a seed in training disturbed its host."
)
DROPPED_GRADIENTS = _counter(
    "kasmina_dropped_gradients_total", "Steps whose seed gradient was not finite and was dropped."
)

DECISIONS = _counter("tamiyo_decisions_total", "Commands that were decided on, by kind.", "kind")
REFUSALS = _counter("tamiyo_refused_commands_total", "Commands that were not carried out.")
RISK = _gauge("tamiyo_risk_level", "Risk of the run: 0 green to 4 critical.")
CONSERVATIVE = _gauge("tamiyo_conservative_mode", "1 while the conservative mode is on.")
REPORTS = _counter(
    "tamiyo_field_reports_total", "Adaptations that were observed to the end.", "outcome"
)
POLICY_CHANGES = _counter(
    "tamiyo_policy_changes_total", "Policies that were installed, refused or taken out.", "change"
)
UNANSWERED = _counter(
    "tamiyo_unanswered_boundaries_total",
    "Boundaries at which a controller in another process gave no answer in time.",
)
POLICY_VERSION = _gauge("tamiyo_policy_version", "Version of the policy that decides.")

QUEUE_DEPTH = _gauge(
    "oona_queue_depth_messages", "Messages that wait, in the outbox or for a reader.", "queue"
)
DROPPED_MESSAGES = _counter("oona_dropped_messages_total", "Telemetry that was dropped.")
PUBLISHED_MESSAGES = _counter("oona_published_messages_total", "Messages that were to be sent.")
BREAKER_OPEN = _gauge("oona_breaker_open", "1 while the server is not asked, after failures.")
REJECTED_SIGNATURES = _counter(
    "oona_rejected_signatures_total", "Messages that none of the keys had signed."
)
DEAD_LETTERS = _gauge(
    "oona_dead_letters_messages", "Messages that failed again and again.", "queue"
)

BRANCHES = _gauge("tezzeret_branches", "Branches by how they run.", "way")
COMPILE_RETRIES = _counter(
    "tezzeret_compile_retries_total", "Compilations that had to be tried again."
)
FALLBACKS = _counter(
    "tezzeret_fallbacks_total", "Calls of a compiled branch that ran eager instead."
)
COMPILE_SECONDS = _counter("tezzeret_compile_seconds_total", "Time spent compiling, beside steps.")

EVENTS = _counter("nissa_events_total", "Records that were taken in.", "type")
ALERTS = _gauge("nissa_alerts", "Alerts by the state in which they are.", "state")

METRICS: Mapping[str, Metric] = {
    each.name: each for each in tuple(globals().values()) if isinstance(each, Metric)
}
"""All of them, by name."""


def series_names(metric: Metric) -> tuple[str, ...]:
    """Names that a metric has in a scrape and in PromQL.

    >>> series_names(STEPS), series_names(STEP_DURATION)[0]
    (('tolaria_steps_total',), 'tolaria_step_duration_seconds_bucket')
    """
    if metric.kind is Kind.HISTOGRAM:
        return tuple(f"{metric.name}_{part}" for part in ("bucket", "count", "sum"))
    return (metric.name,)


def metric_named(name: str) -> Metric:
    """The metric of this name.

    Raises:
        InvalidArgument: there is none.
    """
    try:
        return METRICS[name]
    except KeyError:
        raise InvalidArgument(
            f"there is no metric {name!r}; esper_lightning.nissa.metrics.names has {len(METRICS)}"
        ) from None
