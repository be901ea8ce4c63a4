"""Evidence gathered over an epoch, on the device, without ever waiting for it."""

import torch
from torch import Tensor


class Running:
    """Count, mean and spread of a quantity that is observed once a step.

    Sums are kept as tensors where the values are; :meth:`mean` and :meth:`spread` wait for them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None
        self._square: Tensor | None = None

    def add(self, value: Tensor) -> None:
        """Observe a 0-dimensional tensor."""
        value = value.detach().to(torch.float64 if value.device.type == "cpu" else torch.float32)
        self.count += 1
        if self._sum is None or self._square is None:
            self._sum, self._square = value.clone(), value * value
        else:
            self._sum = self._sum + value
            self._square = self._square + value * value

    def mean(self) -> float | None:
        """Mean, None without observations. May be NaN."""
        return None if self._sum is None else float(self._sum) / self.count

    def spread(self) -> float | None:
        """Standard deviation over mean; None without observations or with a mean of 0."""
        mean = self.mean()
        if mean is None or self._square is None or mean == 0 or mean != mean:
            return None
        variance = max(float(self._square) / self.count - mean * mean, 0.0)
        return float(variance**0.5 / abs(mean))

    def total(self) -> float | None:
        """Sum, None without observations."""
        return None if self._sum is None else float(self._sum)


class SlotEvidence:
    """What is gathered for one slot in one epoch."""

    def __init__(self) -> None:
        self.gradient_norm = Running()
        self.dropped = Running()
        self.pressure = Running()
