"""Experience: recorded runs, kept for learning from them, from folders or from the bus."""

from esper_lightning.simic.experience.bus import BusFeed
from esper_lightning.simic.experience.database import ExperienceFailed
from esper_lightning.simic.experience.runs import Runs, from_runs, task_of
from esper_lightning.simic.experience.store import Drawn, Experience

__all__ = [
    "BusFeed",
    "Drawn",
    "Experience",
    "ExperienceFailed",
    "Runs",
    "from_runs",
    "task_of",
]
