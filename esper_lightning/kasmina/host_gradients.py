"""The host's gradients: how large they are over an epoch, where none arrives, what overflows."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from esper_lightning.kasmina.evidence import Running
from esper_lightning.kasmina.gradients import total_norm
from esper_lightning.kasmina.slot import SeedSlot


class HostGradients:
    """Looks at gradients now and then. Nothing waits for the device before it is asked.

    Args:
        parameters: of the host.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._norm = Running()
        self._largest: dict[int, Tensor] = {}

    def observe(self) -> None:
        """Look at the gradients that are there."""
        found = {n: p.grad for n, p in enumerate(self._parameters) if p.grad is not None}
        if not found:
            return
        norms = [norm.float() for norm in torch._foreach_norm(list(found.values()))]
        self._norm.add(torch.linalg.vector_norm(torch.stack(norms)))
        for number, norm in zip(found, norms, strict=True):
            before = self._largest.get(number)
            self._largest[number] = norm if before is None else torch.maximum(before, norm)

    def norm(self) -> float | None:
        """Mean L2 norm of all of them together; None where none was seen."""
        return self._norm.mean()

    def num_zero(self) -> int:
        """Parameters whose gradient was exactly 0 each time."""
        if not self._largest:
            return 0
        return int((torch.stack(list(self._largest.values())) == 0).sum())

    def state_dict(self) -> dict[str, Any]:
        """What was observed so far."""
        return {"norm": self._norm.state_dict(), "largest": dict(self._largest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, of the same parameters."""
        self._norm.load_state_dict(state["norm"])
        self._largest = dict(state["largest"])


def host_overflow(network: nn.Module, slots: Mapping[str, SeedSlot]) -> Tensor | None:
    """1.0 if a gradient of the host is not finite, so that a loss scaler skips the step, else 0.0.

    None where no gradient arrived.
    """
    seeds = {id(p) for slot in slots.values() if slot.seed for p in slot.seed.parameters()}
    found = [p.grad for p in network.parameters() if p.grad is not None and id(p) not in seeds]
    return (~torch.isfinite(total_norm(found))).float() if found else None
