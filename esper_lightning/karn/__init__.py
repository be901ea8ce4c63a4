"""Karn: the catalogue of what a seed can be.

Design: docs/design/detailed_design/05-karn.md
"""

from esper_lightning.karn.blueprint import Blueprint, Tier
from esper_lightning.karn.catalogue import CATALOGUE, Catalogue, build, get, register
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.parameter_space import Choice, Range
from esper_lightning.karn.query import fitting, query

__all__ = [
    "CATALOGUE",
    "Blueprint",
    "Catalogue",
    "Choice",
    "Cost",
    "CountableBranch",
    "Range",
    "Tier",
    "build",
    "fitting",
    "get",
    "query",
    "register",
]
