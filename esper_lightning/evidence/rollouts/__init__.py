"""Many short runs of ``train.py`` on cheap tasks, for Simic."""

from esper_lightning.evidence.rollouts.families import held_out_task, training_task
from esper_lightning.evidence.rollouts.runs import NEVER, Runs, on_training_tasks

__all__ = ["NEVER", "Runs", "held_out_task", "on_training_tasks", "training_task"]
