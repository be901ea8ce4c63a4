"""Metrics of this epoch, and of no other."""

import math

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

OWN_PREFIX = "growth/"
"""Of what Kasmina logs itself."""


class FreshMetrics:
    """Tells this epoch's metrics from those that a Trainer keeps from an earlier validation.

    Args:
        monitor: the metric whose absence is worth a warning.
    """

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._validated_epoch = -1

    def note_validation(self, trainer: Trainer) -> None:
        """This epoch's validation has run."""
        if not trainer.sanity_checking:
            self._validated_epoch = trainer.current_epoch

    def of(self, trainer: Trainer) -> dict[str, float]:
        """Finite metrics of this epoch; stale and non-finite ones are missing.

        Where validation did not run in this epoch, only names that begin with ``train`` are fresh.
        """
        validated = self._validated_epoch == trainer.current_epoch
        fresh = validated or not trainer.enable_validation
        values = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if (fresh or name.startswith("train")) and not name.startswith(OWN_PREFIX)
        }
        if fresh and self._monitor not in values and trainer.global_step:
            rank_zero_warn(
                f"Kasmina monitors {self._monitor!r}, which was not logged; logged are "
                f"{sorted(values)}. Without it no seed can be judged, and none becomes permanent"
            )
        return {name: value for name, value in values.items() if math.isfinite(value)}
