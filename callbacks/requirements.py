"""Ways of training under which a network can grow."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
)
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch.optim import Optimizer

from esper_lightning.kasmina import has_slot_groups
from esper_lightning.leyline import UnsupportedOptimizer, UnsupportedTraining

_SHARDED = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)
_AVERAGING = {"StochasticWeightAveraging", "WeightAveraging"}
"""Callbacks that keep a copy of the network, by name: the second came with Lightning 2.6."""


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """All callbacks of a Trainer, in order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def check_supported(trainer: Trainer, module: LightningModule) -> None:
    """Refuse what growth cannot keep its promises under.

    Raises:
        UnsupportedTraining: with the reason and the remedy.
    """
    strategy = trainer.strategy
    if isinstance(strategy, _SHARDED):
        raise UnsupportedTraining(
            f"{type(strategy).__name__} splits parameters and optimiser state over processes at "
            f"start, and what grows later would not be split; use strategy='ddp', which holds the "
            f"whole network in every process"
        )
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise UnsupportedTraining(
            "the strategy starts processes that hand their weights back at the end, to a network "
            "that has not grown; use strategy='ddp', or start the processes with torchrun"
        )
    if trainer.world_size > 1 and not isinstance(strategy, DDPStrategy):
        raise UnsupportedTraining(
            f"growth in several processes is known to work with strategy='ddp' only, this is "
            f"{type(strategy).__name__}"
        )
    if not module.automatic_optimization:
        raise UnsupportedTraining(
            "growth needs automatic optimisation, which drops and clips gradients of seeds before "
            "each step; this module sets automatic_optimization=False"
        )
    if module._compiler_ctx is not None:
        raise UnsupportedTraining(
            "the LightningModule was compiled as a whole, and growth changes what runs inside; "
            "hand the Trainer the module itself and compile blocks in it (block.compile())"
        )
    for callback in callbacks_of(trainer):
        if _AVERAGING & {kind.__name__ for kind in type(callback).__mro__}:
            raise UnsupportedTraining(
                f"{type(callback).__name__} keeps a copy of the network as it was, which growth "
                f"changes; leave one of the two out"
            )


def check_optimizers(configured: Any) -> None:
    """Refuse what ``configure_optimizers`` returned unless it is one optimiser with slots' groups.

    Args:
        configured: in any of the forms that Lightning takes.

    Raises:
        UnsupportedOptimizer: none, several, or one that was not created inside the hook.
    """
    found = _optimizers(configured)
    if not found:
        raise UnsupportedOptimizer(
            f"configure_optimizers returned {type(configured).__name__} without an optimiser; "
            f"seeds need one to train: return an optimiser, or a dictionary with one"
        )
    if len(found) > 1:
        names = ", ".join(type(optimizer).__name__ for optimizer in found)
        raise UnsupportedOptimizer(
            f"configure_optimizers returned {len(found)} optimisers ({names}), growth works with "
            f"one; give one optimiser a parameter group for each set of options"
        )
    for optimizer in found:
        if not has_slot_groups(optimizer):
            raise UnsupportedOptimizer(
                f"{type(optimizer).__name__} was not created in configure_optimizers, so it has no "
                f"parameter groups for slots; create the optimiser inside configure_optimizers"
            )


def _optimizers(configured: Any) -> list[Optimizer]:
    if isinstance(configured, Optimizer):
        return [configured]
    if isinstance(configured, dict):
        return _optimizers(configured.get("optimizer"))
    if isinstance(configured, Sequence) and not isinstance(configured, str):
        # Two lists are optimisers and schedulers; of the latter none is an Optimizer.
        return [optimizer for each in configured for optimizer in _optimizers(each)]
    return []
