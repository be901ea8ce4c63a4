"""Tezzeret: compiles blueprints ahead of need, and keeps what is faster than eager.

Design: docs/design/detailed_design/06-tezzeret.md
"""

from esper_lightning.tezzeret.bundle import BadBundle, is_supported
from esper_lightning.tezzeret.outcome import Outcome
from esper_lightning.tezzeret.recipe import Machine, Recipe, key, recipe_for, this_machine
from esper_lightning.tezzeret.stock import Compiled, Stock, Tally
from esper_lightning.tezzeret.workshop import MIN_SPEEDUP, NotMade, Workshop

__all__ = [
    "MIN_SPEEDUP",
    "BadBundle",
    "Compiled",
    "Machine",
    "NotMade",
    "Outcome",
    "Recipe",
    "Stock",
    "Tally",
    "Workshop",
    "is_supported",
    "key",
    "recipe_for",
    "this_machine",
]
