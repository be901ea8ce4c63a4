"""Tamiyo: policies that decide, at epoch boundaries, when, where and what to grow.

Design: docs/design/detailed_design/03-tamiyo.md
"""

from esper_lightning.tamiyo.budget import GrowthBudget
from esper_lightning.tamiyo.field_reports import FieldReports
from esper_lightning.tamiyo.fragrow import FRAGrow
from esper_lightning.tamiyo.heuristic import Heuristic
from esper_lightning.tamiyo.never import Never
from esper_lightning.tamiyo.periodic import Periodic
from esper_lightning.tamiyo.policy import Choice, Policy
from esper_lightning.tamiyo.remote import Remote
from esper_lightning.tamiyo.replay import Replay
from esper_lightning.tamiyo.risk import ConservativeMode, RiskEngine, RiskRules
from esper_lightning.tamiyo.service import Answers
from esper_lightning.tamiyo.uniform import RandomPolicy

__all__ = [
    "Answers",
    "Choice",
    "ConservativeMode",
    "FRAGrow",
    "FieldReports",
    "GrowthBudget",
    "Heuristic",
    "Never",
    "Periodic",
    "Policy",
    "RandomPolicy",
    "Remote",
    "Replay",
    "RiskEngine",
    "RiskRules",
]
