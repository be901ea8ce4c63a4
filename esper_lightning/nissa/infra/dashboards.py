"""Grafana's dashboards: of a run, of growth, of what runs beside training, of error budgets."""

import json
from dataclasses import dataclass

from esper_lightning.nissa.alerts.objectives import OBJECTIVES
from esper_lightning.nissa.alerts.rule_file import burn_rate_name, remaining_name
from esper_lightning.nissa.alerts.yaml_text import Plain
from esper_lightning.nissa.infra.settings import DATA_SOURCE
from esper_lightning.nissa.metrics import Metric, names

_WIDTH, _HEIGHT = 12, 8
_OF_RUN = '{run=~"$run"}'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: above it.
        unit: as Grafana calls it.
        lines: PromQL and the legend of each.
        stacked: whether the lines add up.
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    stacked: bool = False


def _now(metric: Metric, legend: str) -> tuple[str, str]:
    return f"{metric.name}{_OF_RUN}", legend


def _rate(metric: Metric, legend: str, *by: str) -> tuple[str, str]:
    kept = ", ".join(("run", *by))
    return f"sum by ({kept}) (rate({metric.name}{_OF_RUN}[$__rate_interval]))", legend


def _new(metric: Metric, legend: str, *by: str) -> tuple[str, str]:
    kept = ", ".join(("run", *by))
    return f"sum by ({kept}) (increase({metric.name}{_OF_RUN}[$__rate_interval]))", legend


def _quantile(metric: Metric, share: float) -> tuple[str, str]:
    rates = f"sum by (run, le) (rate({metric.name}_bucket{_OF_RUN}[$__rate_interval]))"
    return f"histogram_quantile({share}, {rates})", f"{{{{run}}}} p{share * 100:g}"


BOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "run": (
        "Esper: runs",
        (
            Panel("Objective", "short", (_now(names.OBJECTIVE, "{{run}}"),)),
            Panel("Epoch", "short", (_now(names.EPOCH, "{{run}}"),)),
            Panel("Steps", "ops", (_rate(names.STEPS, "{{run}} all"),)),
            Panel(
                "Step duration",
                "s",
                (
                    _quantile(names.STEP_DURATION, 0.5),
                    _quantile(names.STEP_DURATION, 0.99),
                    _now(names.STEP_BUDGET, "{{run}} budget"),
                ),
            ),
            Panel("Boundary duration", "s", (_quantile(names.BOUNDARY_DURATION, 0.95),)),
            Panel("Learning rate", "sci", (_now(names.LEARNING_RATE, "{{run}}"),)),
            Panel("Training FLOPs", "sci", (_now(names.FLOPS, "{{run}}"),)),
            Panel("Interventions", "short", (_new(names.INTERVENTIONS, "{{level}}", "level"),)),
            Panel("Ended", "short", (_now(names.RUNS_ENDED, "{{run}} {{outcome}}"),)),
            Panel("Training now", "short", (_now(names.RUN_ACTIVE, "{{run}} {{rank}}"),)),
        ),
    ),
    "growth": (
        "Esper: growth",
        (
            Panel(
                "Parameters",
                "short",
                (
                    _now(names.PARAMETERS, "{{run}} network"),
                    _now(names.HOST_PARAMETERS, "{{run}} host"),
                ),
            ),
            Panel("Slots by stage", "short", (_now(names.SLOTS, "{{stage}}"),), stacked=True),
            Panel("Alpha", "percentunit", (_now(names.SEED_ALPHA, "{{slot}}"),)),
            Panel("Age of live seeds", "short", (_now(names.SEED_AGE, "{{slot}}"),)),
            Panel("Moves", "short", (_new(names.STAGE_CHANGES, "{{stage}}", "stage"),)),
            Panel("Gates", "short", (_new(names.GATES, "{{gate}} {{passed}}", "gate", "passed"),)),
            Panel(
                "Isolation violations",
                "short",
                (_now(names.ISOLATION_VIOLATIONS, "{{run}}"),),
            ),
            Panel("Dropped gradients", "short", (_now(names.DROPPED_GRADIENTS, "{{run}}"),)),
            Panel(
                "Decisions",
                "short",
                (
                    _new(names.DECISIONS, "{{kind}}", "kind"),
                    _new(names.REFUSALS, "refused"),
                    _new(names.UNANSWERED, "unanswered"),
                ),
            ),
            Panel("Field reports", "short", (_new(names.REPORTS, "{{outcome}}", "outcome"),)),
            Panel(
                "Risk",
                "short",
                (
                    _now(names.RISK, "{{run}} level"),
                    _now(names.CONSERVATIVE, "{{run}} conservative"),
                ),
            ),
            Panel("Policy", "short", (_now(names.POLICY_VERSION, "{{run}} version"),)),
        ),
    ),
    "beside": (
        "Esper: bus, compiler, alerts",
        (
            Panel("Waiting messages", "short", (_now(names.QUEUE_DEPTH, "{{queue}}"),)),
            Panel("Dead letters", "short", (_now(names.DEAD_LETTERS, "{{queue}}"),)),
            Panel(
                "Messages",
                "ops",
                (
                    _rate(names.PUBLISHED_MESSAGES, "{{run}} published"),
                    _rate(names.DROPPED_MESSAGES, "{{run}} dropped"),
                ),
            ),
            Panel(
                "Trouble",
                "short",
                (
                    _now(names.BREAKER_OPEN, "{{run}} breaker open"),
                    _now(names.REJECTED_SIGNATURES, "{{run}} rejected signatures"),
                ),
            ),
            Panel("Branches", "short", (_now(names.BRANCHES, "{{way}}"),), stacked=True),
            Panel(
                "Compiling",
                "short",
                (
                    _now(names.COMPILE_RETRIES, "{{run}} retries"),
                    _now(names.FALLBACKS, "{{run}} fallbacks"),
                ),
            ),
            Panel("Records", "ops", (_rate(names.EVENTS, "{{type}}", "type"),)),
            Panel("Alerts of runs", "short", (_now(names.ALERTS, "{{run}} {{state}}"),)),
        ),
    ),
    "budgets": (
        "Esper: error budgets",
        tuple(
            Panel(
                f"{objective.text[0].upper()}{objective.text[1:]}",
                "percentunit",
                ((remaining_name(objective), "left of 30 days"),),
            )
            for objective in OBJECTIVES
        )
        + tuple(
            Panel(
                f"Burn rate: {objective.name}",
                "short",
                (
                    (burn_rate_name(objective, 3_600), "1 hour"),
                    (burn_rate_name(objective, 21_600), "6 hours"),
                    (burn_rate_name(objective, 259_200), "3 days"),
                ),
            )
            for objective in OBJECTIVES
        ),
    ),
}
"""Title and panels of every dashboard."""


def dashboards() -> dict[str, str]:
    """JSON by name, as Grafana provisions it."""
    return {
        name: json.dumps(_dashboard(name, title, panels), indent=1) + "\n"
        for name, (title, panels) in BOARDS.items()
    }


def _dashboard(name: str, title: str, panels: tuple[Panel, ...]) -> Plain:
    variable: Plain = {
        "name": "run",
        "label": "Run",
        "type": "query",
        "datasource": _source(),
        "query": f"label_values({names.EPOCHS.name}, run)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "sort": 2,
    }
    return {
        "uid": f"esper-{name}",
        "title": title,
        "tags": ["esper"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable] if name != "budgets" else []},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> Plain:
    place = {
        "x": _WIDTH * (number % 2),
        "y": _HEIGHT * (number // 2),
        "w": _WIDTH,
        "h": _HEIGHT,
    }
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _source(),
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "custom": {"stacking": stacking, "fillOpacity": 60 if panel.stacked else 0},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _source(),
                "expr": promql,
                "legendFormat": legend,
            }
            for index, (promql, legend) in enumerate(panel.lines)
        ],
    }


def _source() -> Plain:
    return {"type": "prometheus", "uid": DATA_SOURCE}
