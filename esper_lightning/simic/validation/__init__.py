"""Validation: a policy is published when it is shown to be better, and can be withdrawn.

Design: docs/design/detailed_design/04-simic.md
"""

from esper_lightning.simic.validation.checks import Check, Timing, check_conduct, check_policy
from esper_lightning.simic.validation.comparison import (
    Difference,
    Interval,
    Measured,
    Resampling,
    difference,
)
from esper_lightning.simic.validation.gate import RIVALS, Gate, Trial, Utilities
from esper_lightning.simic.validation.publication import (
    NotPublished,
    Standing,
    current,
    publish,
    withdraw,
)
from esper_lightning.simic.validation.rule import CANDIDATE, CURRENT, Rule
from esper_lightning.simic.validation.runs import UtilitiesOfRuns
from esper_lightning.simic.validation.verdict import Judged, Verdict

__all__ = [
    "CANDIDATE",
    "CURRENT",
    "RIVALS",
    "Check",
    "Difference",
    "Gate",
    "Interval",
    "Judged",
    "Measured",
    "NotPublished",
    "Resampling",
    "Rule",
    "Standing",
    "Timing",
    "Trial",
    "Utilities",
    "UtilitiesOfRuns",
    "Verdict",
    "check_conduct",
    "check_policy",
    "current",
    "difference",
    "publish",
    "withdraw",
]
