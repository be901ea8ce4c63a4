"""How long a run will be, as far as its Trainer knows."""

import math

from lightning.pytorch import Trainer


def max_epochs(trainer: Trainer, *, epoch: int, steps_per_epoch: int) -> int | None:
    """Epochs that the run will have, None when it is open-ended.

    Args:
        trainer: of the run.
        epoch: 0-based epoch that has just ended, -1 before the first.
        steps_per_epoch: optimiser steps that it took.
    """
    epochs = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
    step, last_step = trainer.global_step, trainer.max_steps
    if epochs is None and last_step > 0 and steps_per_epoch > 0:
        epochs = epoch + 1 + math.ceil((last_step - step) / steps_per_epoch)
    may_stop = epoch + 1 >= (trainer.min_epochs or 0) and step >= (trainer.min_steps or 0)
    is_over = 0 < last_step <= step
    if epoch >= 0 and ((trainer.should_stop and may_stop) or is_over):
        return epoch + 1
    return epochs
