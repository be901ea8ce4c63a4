"""The host's gradients: how large they are over an epoch, where none arrives, what overflows."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from esper_lightning.kasmina.gradients import total_norm
from esper_lightning.kasmina.slot import SeedSlot

ENOUGH_LOOKS = 4
"""Looks in an epoch from which on it can be told that a tensor gets no gradient any more: in some
hosts chance decides, step by step, what takes part."""


class HostGradients:
    """Looks at gradients now and then. Nothing waits for the device before it is asked.

    Attributes:
        num_looks: in this epoch, those at overflowing gradients included.
    """

    def __init__(self) -> None:
        self._always: dict[str, bool] = {}
        self.start_epoch({})

    def start_epoch(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Begin to look anew, at parameters of the host by name."""
        self._parameters = parameters
        self.num_looks = 0
        self._sums: dict[str, Tensor] = {}

    def observe(self, *, overflow_is_skipped: bool = False) -> None:
        """Look at the gradients that are there.

        Args:
            overflow_is_skipped: a loss scaler leaves out a step whose gradients are not finite:
                nothing is to be learned from it.
        """
        self.num_looks += 1
        grads = [p.grad for p in self._parameters.values()]
        found = [grad for grad in grads if grad is not None]
        if not found:
            return
        norms = torch.stack([norm.float() for norm in torch._foreach_norm(found)])
        total = torch.linalg.vector_norm(norms)
        counts = torch.isfinite(total) if overflow_is_skipped else torch.ones_like(total).bool()
        there = torch.tensor([grad is not None for grad in grads], device=norms.device)
        full = norms.new_full((len(grads),), -1.0).masked_scatter(there, norms)
        for name, value in (
            ("looks", counts.float()),
            ("norm", torch.where(counts, total, 0.0)),
            ("some", ((full != 0) & there & counts).float()),
            ("none", ((full == 0) & counts).float()),
        ):
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def norm(self) -> float | None:
        """Mean L2 norm of all of them together; None where none was seen."""
        looks = self._looks()
        return float(self._sums["norm"]) / looks if looks else None

    def num_blocked(self) -> int:
        """Parameters that had a gradient at every look until now, and in this epoch at none.

        Only what came out as exactly 0 each time counts. A parameter that is left out of a pass, or
        that was frozen, has no gradient either, and nobody blocked it.
        """
        looks = self._looks()
        if looks < ENOUGH_LOOKS:
            return 0
        blocked = (self._sums["none"] == looks).tolist()
        names = zip(self._parameters, blocked, strict=True)
        return sum(self._always.get(name, False) for name, now in names if now)

    def keep_epoch(self) -> None:
        """Let this epoch be one of those that later ones are compared with."""
        looks = self._looks()
        if looks:
            every = (self._sums["some"] == looks).tolist()
            for name, now in zip(self._parameters, every, strict=True):
                self._always[name] = self._always.get(name, True) and now

    def state_dict(self) -> dict[str, Any]:
        """What was observed so far."""
        return {
            "always": dict(self._always),
            "num_looks": self.num_looks,
            "sums": dict(self._sums),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, with the same parameters."""
        self._always = dict(state["always"])
        self.num_looks = state["num_looks"]
        self._sums = dict(state["sums"])

    def _looks(self) -> int:
        return int(self._sums["looks"]) if self._sums else 0


def host_overflow(network: nn.Module, slots: Mapping[str, SeedSlot]) -> Tensor | None:
    """1.0 if a gradient of the host is not finite, so that a loss scaler skips the step, else 0.0.

    None where no gradient arrived.
    """
    seeds = {id(p) for slot in slots.values() if slot.seed for p in slot.seed.parameters()}
    found = [p.grad for p in network.parameters() if p.grad is not None and id(p) not in seeds]
    return (~torch.isfinite(total_norm(found))).float() if found else None
