"""Many short runs of ``train.py`` on cheap tasks, for Simic."""

from esper_lightning.evidence.rollouts.batch_jobs import BatchJobs
from esper_lightning.evidence.rollouts.families import (
    gate_task,
    held_out_task,
    training_task,
)
from esper_lightning.evidence.rollouts.ray_tasks import RayTasks
from esper_lightning.evidence.rollouts.runs import NEVER, Runs, on_training_tasks

__all__ = [
    "NEVER",
    "BatchJobs",
    "RayTasks",
    "Runs",
    "gate_task",
    "held_out_task",
    "on_training_tasks",
    "training_task",
]
