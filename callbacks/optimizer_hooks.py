"""What is put around a module's own hooks of its optimiser."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from esper_lightning.callbacks.requirements import check_optimizers
from esper_lightning.kasmina import SeedBed, slot_groups_in_new_optimizers


class OptimizerHooks:
    """Slots' groups at an optimiser's birth, seeds clipped apart, empty groups out of its way.

    Args:
        bed: the slots.
    """

    def __init__(self, bed: SeedBed) -> None:
        self._bed = bed

    def configure(self, original: Callable[[], Any]) -> Any:
        """Around ``configure_optimizers``."""
        with slot_groups_in_new_optimizers(self._bed.slots):
            configured = original()
        check_optimizers(configured)
        return configured

    def clip(
        self,
        original: Callable[..., Any],
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Around ``configure_gradient_clipping``: the host as it would be without seeds.

        Each live seed is clipped by itself. This is the last hook before the optimiser steps:
        nobody else reads its groups until it has.
        """
        clipping = {
            "gradient_clip_val": gradient_clip_val,
            "gradient_clip_algorithm": gradient_clip_algorithm,
        }
        if not self._bed.is_bound:  # a tuner's trial run, before the fit has started
            original(optimizer, **clipping)
            return
        with self._bed.groups.without_seeds():
            original(optimizer, **clipping)
        if gradient_clip_val:
            by_value = str(gradient_clip_algorithm).endswith("value")
            key = "value" if by_value else "norm"
            self._bed.watch.clip_seeds(**{key: float(gradient_clip_val)})
        self._bed.groups.hide_empty()

    def step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Around ``optimizer_step``: all groups are there when schedulers step.

        Also where a scaler, or an error, left the optimiser's own step out.
        """
        try:
            original(*args, **kwargs)
        finally:
            if self._bed.is_bound:
                self._bed.groups.show_empty()
