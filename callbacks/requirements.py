"""Ways of training under which a network can grow."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from esper_lightning.leyline import UnsupportedTraining


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """All callbacks of a Trainer, in order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def check_supported(trainer: Trainer, module: LightningModule) -> None:
    """Refuse what growth cannot keep its promises under.

    Raises:
        UnsupportedTraining: with the reason and the remedy.
    """
    if trainer.world_size > 1:
        raise UnsupportedTraining(
            f"growth runs in one process so far, the Trainer has {trainer.world_size}; "
            f"use devices=1"
        )
    if not module.automatic_optimization:
        raise UnsupportedTraining(
            "growth needs automatic optimisation; this module sets automatic_optimization=False"
        )
    for callback in callbacks_of(trainer):
        if isinstance(callback, StochasticWeightAveraging | WeightAveraging):
            raise UnsupportedTraining(
                f"{type(callback).__name__} keeps a copy of the network as it was, which growth "
                f"changes; leave one of the two out"
            )
