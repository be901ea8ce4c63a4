"""Evidence gathered over an epoch, on the device, without ever waiting for it."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

_KEPT = 64
"""Observations that are kept before they are summed, all at once."""


class Running:
    """Count, mean and spread of a quantity that is observed once a step.

    Observations and sums are kept as tensors where the values are; :meth:`mean` and :meth:`spread`
    wait for them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[Tensor] = []
        self._sum: Tensor | None = None
        self._square: Tensor | None = None

    def add(self, value: Tensor) -> None:
        """Observe a 0-dimensional tensor."""
        self.count += 1
        self._kept.append(value.detach().clone())
        if len(self._kept) == _KEPT:
            self._reduce()

    def _reduce(self) -> None:
        if not self._kept:
            return
        values = torch.stack(self._kept)
        values = values.to(torch.float64 if values.device.type == "cpu" else torch.float32)
        total, square = values.sum(), values.square().sum()
        self._sum = total if self._sum is None else self._sum + total
        self._square = square if self._square is None else self._square + square
        self._kept = []

    def mean(self) -> float | None:
        """Mean, None without observations. May be NaN."""
        self._reduce()
        return None if self._sum is None else float(self._sum) / self.count

    def spread(self) -> float | None:
        """Standard deviation over mean; None without observations or with a mean of 0."""
        mean, deviation = self.mean(), self.deviation()
        if not mean or deviation is None or mean != mean:
            return None
        return deviation / abs(mean)

    def deviation(self) -> float | None:
        """Standard deviation, None without observations. May be NaN."""
        mean = self.mean()
        if mean is None or self._square is None:
            return None
        variance = float(self._square) / self.count - mean * mean
        return float(variance if variance != variance else max(variance, 0.0) ** 0.5)

    def state_dict(self) -> dict[str, Any]:
        """What was observed so far, not summed any further than it is."""
        kept = torch.stack(self._kept) if self._kept else None
        return {"count": self.count, "kept": kept, "sum": self._sum, "square": self._square}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.count, self._sum, self._square = state["count"], state["sum"], state["square"]
        self._kept = [] if state["kept"] is None else list(state["kept"].unbind())

    def merge(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Be what several of :meth:`state_dict` observed together, on the device of this one."""
        told = list(states)
        device = next((t.device for t in (self._sum, *self._kept) if t is not None), None)
        self.load_state_dict({"count": 0, "kept": None, "sum": None, "square": None})
        for state in told:
            other = Running()
            other.load_state_dict(state)
            other._reduce()
            if other._sum is None or other._square is None:
                continue
            total = other._sum if device is None else other._sum.to(device)
            square = other._square if device is None else other._square.to(device)
            self.count += other.count
            self._sum = total if self._sum is None else self._sum + total
            self._square = square if self._square is None else self._square + square

    def total(self) -> float | None:
        """Sum, None without observations."""
        self._reduce()
        return None if self._sum is None else float(self._sum)


class SlotEvidence:
    """What is gathered for one slot in one epoch."""

    def __init__(self) -> None:
        self.gradient_norm = Running()
        self.dropped = Running()
