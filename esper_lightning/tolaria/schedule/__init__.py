"""Learning rates: one scheduler owns every rate."""

from esper_lightning.tolaria.schedule.groupwise import GroupwiseLR
from esper_lightning.tolaria.schedule.policies import (
    Constant,
    Cosine,
    HostPolicy,
    Newcomer,
    WarmupStableDecay,
)

__all__ = [
    "Constant",
    "Cosine",
    "GroupwiseLR",
    "HostPolicy",
    "Newcomer",
    "WarmupStableDecay",
]
