"""Metrics of this epoch, and of no other."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

OWN_PREFIX = "growth/"
"""Of what Kasmina logs itself."""
TRAINING_FLOPS = f"{OWN_PREFIX}training_flops"
"""Name of the metric: training FLOPs that were spent so far."""


class FreshMetrics:
    """Tells this epoch's metrics from those that a Trainer keeps from an earlier validation.

    Args:
        monitor: the metric whose absence is worth a warning.
    """

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._validated_epoch = -1
        self._noted: dict[str, float] = {}
        self._restored: dict[str, float] = {}

    def note_validation(self, trainer: Trainer) -> None:
        """This epoch's validation has run."""
        if not trainer.sanity_checking:
            self._validated_epoch = trainer.current_epoch
            self._noted = {
                name: float(value)
                for name, value in trainer.callback_metrics.items()
                if not name.startswith(("train", OWN_PREFIX))
            }
            self._restored = {}

    def of(self, trainer: Trainer) -> tuple[dict[str, float], dict[str, float]]:
        """Metrics of this epoch: those that are finite, and those that are not.

        Stale ones are missing. Where validation did not run in this epoch, only names that begin
        with ``train`` are fresh.
        """
        validated = self._validated_epoch == trainer.current_epoch
        fresh = validated or not trainer.enable_validation
        known: dict[str, Any] = {
            **(self._restored if validated else {}),
            **trainer.callback_metrics,
        }
        values = {
            name: float(value)
            for name, value in known.items()
            if (fresh or name.startswith("train")) and not name.startswith(OWN_PREFIX)
        }
        if fresh and self._monitor not in values and trainer.global_step:
            rank_zero_warn(
                f"Kasmina monitors {self._monitor!r}, which was not logged; logged are "
                f"{sorted(values)}. Without it no seed can be judged, and none becomes permanent"
            )
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        return finite, {name: value for name, value in values.items() if name not in finite}

    def state_dict(self) -> dict[str, Any]:
        """The last validation: its epoch, and what it told."""
        return {"epoch": self._validated_epoch, "metrics": self._noted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A Trainer that goes on from a checkpoint knows nothing of an earlier validation."""
        self._validated_epoch, self._restored = state["epoch"], dict(state["metrics"])
        self._noted = self._restored
