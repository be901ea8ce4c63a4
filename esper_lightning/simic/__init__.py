"""Simic: a policy is trained from recorded decisions.

Design: docs/design/detailed_design/04-simic.md
"""

from esper_lightning.simic.cloning import Cloned, clone
from esper_lightning.simic.comparison import Agreement, agreement
from esper_lightning.simic.lesson import Lesson, journals, lessons

__all__ = [
    "Agreement",
    "Cloned",
    "Lesson",
    "agreement",
    "clone",
    "journals",
    "lessons",
]
