"""A point in a run, as far as a lifecycle needs to know it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from esper_lightning.leyline import Objective


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """An epoch boundary.

    Attributes:
        run_id: the run.
        epoch: 0-based epoch that has just ended; -1 before the first.
        step: optimiser steps so far.
        objective: the monitored metric, with this epoch's value; None where it is missing or not
            finite.
        metrics: all finite metrics of this epoch.
        not_finite: the others of this epoch.
        max_epochs: of the run, None when it is open-ended.
        steps_per_epoch: optimiser steps of the last epoch.
        flops: training FLOPs of one sample as the network was trained in this epoch.
        host_flops: the same before any growth.
        total_flops: spent so far.
    """

    run_id: str
    epoch: int
    step: int
    objective: Objective
    metrics: Mapping[str, float] = field(default_factory=dict)
    not_finite: Mapping[str, float] = field(default_factory=dict)
    max_epochs: int | None = None
    steps_per_epoch: int = 0
    flops: float | None = None
    host_flops: float | None = None
    total_flops: float | None = None

    @property
    def steps_left(self) -> int | None:
        """Optimiser steps to the end of the run, None where that is not known."""
        if self.is_last:
            return 0
        if self.max_epochs is None or not self.steps_per_epoch:
            return None
        return (self.max_epochs - self.epoch - 1) * self.steps_per_epoch

    @property
    def is_last(self) -> bool:
        """True when no training step follows."""
        return self.max_epochs is not None and self.epoch + 1 >= self.max_epochs
