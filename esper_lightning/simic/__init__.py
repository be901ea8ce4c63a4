"""Simic: a policy is trained from recorded decisions.

What learns by PPO needs Lightning and PEFT, and is imported by its own path:
``esper_lightning.simic.module.Simic`` and ``esper_lightning.simic.data.SimicData``.

Design: docs/design/detailed_design/04-simic.md
"""

from esper_lightning.simic.cloning import Cloned, clone
from esper_lightning.simic.comparison import Agreement, agreement
from esper_lightning.simic.episode import Episode, Step
from esper_lightning.simic.lesson import Lesson, journals, lessons
from esper_lightning.simic.recording import Recording
from esper_lightning.simic.reward import Utility
from esper_lightning.simic.rollouts import Rollouts, RolloutTask

__all__ = [
    "Agreement",
    "Cloned",
    "Episode",
    "Lesson",
    "Recording",
    "RolloutTask",
    "Rollouts",
    "Step",
    "Utility",
    "agreement",
    "clone",
    "journals",
    "lessons",
]
