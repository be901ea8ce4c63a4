"""The rule table as Prometheus's rule file."""

from collections.abc import Sequence

from esper_lightning.nissa.alerts.expressions import duration
from esper_lightning.nissa.alerts.objectives import (
    OBJECTIVES,
    PERIOD_S,
    ServiceObjective,
)
from esper_lightning.nissa.alerts.rules import RULES, Rule
from esper_lightning.nissa.alerts.yaml_text import Plain, yaml_text

EVALUATION_S = 15
"""Seconds between two evaluations."""

WINDOWS_S = (3_600, 21_600, 3 * 86_400)
"""Windows whose burn rates are recorded, beside the whole period."""

RUNBOOK = "docs/runbook.md"
"""The page that has a section for each alert, in this repository and in its documentation."""

HEAD = "# Made from esper_lightning/nissa/alerts: python -m esper_lightning.nissa.infra\n"


def rule_file(rules: Sequence[Rule] = RULES) -> str:
    """The rule file: alerts, and the error budgets of 30 days."""
    groups: list[Plain] = [
        {
            "name": "esper_alerts",
            "interval": duration(EVALUATION_S),
            "rules": [_alert(rule) for rule in rules],
        },
        {
            "name": "esper_error_budgets",
            "interval": "1m",
            "rules": [rule for objective in OBJECTIVES for rule in _records(objective)],
        },
    ]
    return HEAD + yaml_text({"groups": groups})


def burn_rate_name(objective: ServiceObjective, window_s: int) -> str:
    """The recorded series of an objective's burn rate over all runs.

    >>> burn_rate_name(OBJECTIVES[0], 3_600)
    'esper:step_latency:burn_rate_1h'
    """
    return f"esper:{objective.name}:burn_rate_{duration(window_s)}"


def remaining_name(objective: ServiceObjective) -> str:
    """The recorded series of what is left of an objective's budget of 30 days."""
    return f"esper:{objective.name}:budget_remaining_ratio"


def _alert(rule: Rule) -> Plain:
    told: dict[str, Plain] = {"alert": rule.name, "expr": rule.when.promql()}
    if rule.for_s:
        told["for"] = duration(rule.for_s)
    told["labels"] = {"severity": rule.severity.value}
    told["annotations"] = {
        "summary": rule.text,
        "description": rule.remedy,
        "runbook": f"{RUNBOOK}#{rule.name}",
    }
    return told


def _records(objective: ServiceObjective) -> list[Plain]:
    records: list[Plain] = [
        {
            "record": burn_rate_name(objective, window_s),
            "expr": _burn_rate(objective, window_s),
        }
        for window_s in (*WINDOWS_S, PERIOD_S)
    ]
    records.append(
        {
            "record": remaining_name(objective),
            "expr": f"1 - {burn_rate_name(objective, PERIOD_S)}",
        }
    )
    return records


def _burn_rate(objective: ServiceObjective, window_s: int) -> str:
    window = duration(window_s)
    bad = f"sum(increase({objective.bad.name}[{window}]))"
    total = f"(sum(increase({objective.total.name}[{window}])) > 0)"
    return f"{bad} / {total} / {objective.budget:.12g}"
