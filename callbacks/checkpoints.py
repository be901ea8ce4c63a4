"""The checkpoints of a run."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def best_checkpoint(trainer: Trainer) -> str:
    """Path of the checkpoint that a metric chose; others keep the last epoch, whatever it is."""
    kept = [item for item in trainer.checkpoint_callbacks if isinstance(item, ModelCheckpoint)]
    return next(item.best_model_path for item in kept if item.monitor is not None)
