"""The table of alert rules, from which Prometheus's file and the book of alerts are made."""

from dataclasses import dataclass

from esper_lightning.leyline import Severity
from esper_lightning.nissa.alerts.expressions import (
    Compare,
    Comparison,
    Expression,
    Increase,
    Now,
    Ratio,
    above,
    both,
    rose,
)
from esper_lightning.nissa.alerts.objectives import (
    BURNINGS,
    LEAST_EVENTS,
    OBJECTIVES,
    burns,
    run_budget_spent,
)
from esper_lightning.nissa.metrics import names

_5_MINUTES = 300

MAX_QUEUE = 1_000
"""So many messages may wait."""

SLOW_SHARE = 0.05
"""Share of training steps that may be slow in five minutes."""

MAX_RETRIES = 3
"""Compilations that may be tried again in fifteen minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When an alert is raised.

    Attributes:
        name: of the alert.
        severity: how soon somebody should look.
        when: every labelled value that this has is one alert.
        for_s: seconds that it must have it without a break.
        text: what is wrong, in words.
        remedy: what to do first.
    """

    name: str
    severity: Severity
    when: Expression
    for_s: int = 0
    text: str
    remedy: str


_OWN = (
    Rule(
        name="training_latency_high",
        severity=Severity.WARNING,
        when=above(Ratio(Increase(names.SLOW_STEPS, 300), Increase(names.STEPS, 300)), SLOW_SHARE),
        for_s=120,
        text="More than one training step in twenty takes longer than the run's step budget.",
        remedy="Look what else uses the machine, and whether the network has outgrown its budget.",
    ),
    Rule(
        name="kasmina_isolation_violation",
        severity=Severity.CRITICAL,
        when=rose(names.ISOLATION_VIOLATIONS, _5_MINUTES),
        text="A seed in training changed what its host computes.",
        remedy="See the journal for slot and blueprint; do not plant that blueprint again.",
    ),
    Rule(
        name="oona_queue_depth",
        severity=Severity.WARNING,
        when=above(Now(names.QUEUE_DEPTH), MAX_QUEUE),
        for_s=60,
        text="Messages pile up before a reader or in the outbox.",
        remedy="python -m esper_lightning.oona health tells which group is behind.",
    ),
    Rule(
        name="tezzeret_compile_retry_high",
        severity=Severity.WARNING,
        when=above(Increase(names.COMPILE_RETRIES, 900), MAX_RETRIES),
        text="Compilations fail and are tried again.",
        remedy="python -m esper_lightning.urza show compiled tells why; seeds run eager meanwhile.",
    ),
    Rule(
        name="tolaria_rollback",
        severity=Severity.WARNING,
        when=rose(names.ROLLBACKS, 900),
        text="The governor undid an epoch.",
        remedy="The journal tells the alarm and which seeds were blamed.",
    ),
    Rule(
        name="tolaria_run_stalled",
        severity=Severity.CRITICAL,
        when=both(
            Compare(Increase(names.BATCHES, _5_MINUTES), Comparison.EQUAL, 0),
            above(Now(names.RUN_ACTIVE), 0),
        ),
        for_s=_5_MINUTES,
        text="A run that trains has done no batch for ten minutes.",
        remedy="Look at the process: a data loader, another rank or a file system may hang.",
    ),
    Rule(
        name="tolaria_run_failed",
        severity=Severity.CRITICAL,
        when=rose(names.RUNS_ENDED, _5_MINUTES, (("outcome", "failed"),)),
        text="A run ended with an error.",
        remedy="Its summary.json names the error; resume it from its last checkpoint.",
    ),
    Rule(
        name="tamiyo_conservative_mode",
        severity=Severity.WARNING,
        when=above(Now(names.CONSERVATIVE), 0),
        text="The controller is in conservative mode: one seed at a boundary at most.",
        remedy="The reason of its latest decision names the signal that turned it on.",
    ),
    Rule(
        name="tamiyo_risk_critical",
        severity=Severity.CRITICAL,
        when=Compare(Now(names.RISK), Comparison.AT_LEAST, 4),
        text="The risk of the run is at its highest level.",
        remedy="The epoch is undone by itself; if it comes again, stop the run.",
    ),
    Rule(
        name="tamiyo_controller_silent",
        severity=Severity.WARNING,
        when=rose(names.UNANSWERED, _5_MINUTES),
        text="The controller in another process gave no answer in time; nothing was decided.",
        remedy="See that python -m esper_lightning.tamiyo serve runs and reaches the bus.",
    ),
    Rule(
        name="oona_rejected_signatures",
        severity=Severity.CRITICAL,
        when=rose(names.REJECTED_SIGNATURES, _5_MINUTES),
        text="Somebody sent messages that none of the keys had signed.",
        remedy="Find out who can write to the server; check that all have the same key.",
    ),
    Rule(
        name="oona_dead_letters",
        severity=Severity.WARNING,
        when=above(Now(names.DEAD_LETTERS), 0),
        text="Messages failed again and again and were put aside.",
        remedy="python -m esper_lightning.oona dead-letters shows them, replay sends them again.",
    ),
    Rule(
        name="oona_breaker_open",
        severity=Severity.WARNING,
        when=above(Now(names.BREAKER_OPEN), 0),
        for_s=60,
        text="The message bus cannot be reached; messages wait in the outbox.",
        remedy="Start the server again; what waits is sent by itself.",
    ),
)

_BUDGETS = tuple(
    Rule(
        name=f"slo_{objective.name}_burns_{burning.name}",
        severity=burning.severity,
        when=burns(objective, burning),
        text=f"The error budget burns {burning.rate:g} times too fast: {objective.text}.",
        remedy="Look at the alert of the cause; if there is none, at what changed last.",
    )
    for objective in OBJECTIVES
    for burning in BURNINGS
) + tuple(
    Rule(
        name=f"slo_{objective.name}_run_budget_spent",
        severity=Severity.WARNING,
        when=run_budget_spent(objective),
        text=f"The run has spent its own error budget: {objective.text}.",
        remedy=f"Told from {LEAST_EVENTS} events on; compare with the run before it.",
    )
    for objective in OBJECTIVES
)

RULES: tuple[Rule, ...] = _OWN + _BUDGETS
"""All of them; names are unique."""
