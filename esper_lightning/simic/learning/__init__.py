"""How a policy learns from episodes: advantages, rows of numbers, the loss."""

from esper_lightning.simic.learning.advantages import Estimates, gae, normalised, vtrace
from esper_lightning.simic.learning.evaluation import Told, evaluate
from esper_lightning.simic.learning.ppo import PPOConfig, Terms, explained_variance, kl, ppo
from esper_lightning.simic.learning.rows import Minibatch, Rows, collate

__all__ = [
    "Estimates",
    "Minibatch",
    "PPOConfig",
    "Rows",
    "Terms",
    "Told",
    "collate",
    "evaluate",
    "explained_variance",
    "gae",
    "kl",
    "normalised",
    "ppo",
    "vtrace",
]
