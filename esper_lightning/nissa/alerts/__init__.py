"""Alerts and error budgets: one table of rules, rendered for Prometheus and worked out here."""

from esper_lightning.nissa.alerts.book import Alert, AlertBook, AlertState
from esper_lightning.nissa.alerts.objectives import (
    OBJECTIVES,
    ErrorBudget,
    ServiceObjective,
    run_budgets,
)
from esper_lightning.nissa.alerts.rules import RULES, Rule

__all__ = [
    "OBJECTIVES",
    "RULES",
    "Alert",
    "AlertBook",
    "AlertState",
    "ErrorBudget",
    "Rule",
    "ServiceObjective",
    "run_budgets",
]
