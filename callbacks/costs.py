"""What a run costs."""

from collections.abc import Hashable
from typing import Any

from esper_lightning.kasmina import FlopMeter, Ranks


class Costs:
    """Training FLOPs and samples of a run, of all ranks from each :meth:`settle` on.

    Attributes:
        meter: counts.
        num_samples: trained on so far, each as often as it was.
        topology: of the network in this epoch.
        host_topology: of the network before any growth, None where it was not seen.
    """

    def __init__(self) -> None:
        self.meter = FlopMeter()
        self.num_samples = 0
        self.topology: Hashable = None
        self.host_topology: Hashable = None
        self._settled = (0.0, 0)

    @property
    def total(self) -> float:
        """Training FLOPs so far."""
        return self.meter.total

    @property
    def per_sample(self) -> float | None:
        """Training FLOPs of one sample in the last epoch that was trained."""
        return self.meter.per_sample(self.topology)

    @property
    def host_per_sample(self) -> float | None:
        """Training FLOPs of one sample before any growth."""
        return self.meter.per_sample(self.host_topology)

    def begin_fit(self) -> None:
        """What was spent before is that of all ranks already."""
        self._settled = (self.meter.total, self.num_samples)

    def begin_step(self) -> None:
        """Count the operations of a topology's first step."""
        self.meter.begin(self.topology)

    def end_step(self, num_samples: int) -> None:
        """Bill a step on so many samples."""
        self.num_samples += num_samples
        self.meter.end(self.topology, num_samples)

    def settle(self, ranks: Ranks) -> None:
        """Bill what the other ranks spent since the last time. Called on all ranks."""
        if not ranks.alone:
            total, samples = self._settled
            spent = ranks.gather((self.meter.total - total, self.num_samples - samples))
            self.meter.total = total + sum(each for each, _ in spent)
            self.num_samples = samples + sum(each for _, each in spent)
        self.begin_fit()

    def state_dict(self) -> dict[str, Any]:
        """What was spent so far, and what a sample cost before any growth."""
        return {
            "meter": self.meter.state_dict(),
            "num_samples": self.num_samples,
            "host_per_sample": self.host_per_sample,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.meter.load_state_dict(state["meter"])
        self.num_samples = state["num_samples"]
        if state["host_per_sample"] is not None:
            self.meter.remember(self.host_topology, state["host_per_sample"])
