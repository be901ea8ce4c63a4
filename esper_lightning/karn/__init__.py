"""Karn: the catalogue of what a seed can be.

Design: docs/design/detailed_design/05-karn.md
"""

from esper_lightning.karn.blueprint import Blueprint, Tier
from esper_lightning.karn.catalogue import CATALOGUE, build, get
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.karn.query import fitting

__all__ = [
    "CATALOGUE",
    "Blueprint",
    "Choice",
    "Cost",
    "CountableBranch",
    "Range",
    "Tier",
    "build",
    "fitting",
    "get",
]
