"""How much the loss still pulls at the host's modules at the slots."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from esper_lightning.kasmina.slot import SeedSlot


class Pressure:
    """The root mean square of the gradient of every slot's module, averaged over observations.

    All slots are measured together, in a handful of operations, and nothing waits for the device
    before :meth:`mean`.

    Args:
        slots: by module path; what their modules hold by now is what is measured.
    """

    def __init__(self, slots: Mapping[str, SeedSlot]) -> None:
        self._parameters = {
            path: list(slot.base_layer.parameters()) for path, slot in slots.items()
        }
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._averaging: tuple[tuple[tuple[int, ...], ...], Tensor] | None = None

    def observe(self) -> None:
        """Look at the gradients that are there."""
        pulled: dict[str, list[Tensor]] = {}
        for path, parameters in self._parameters.items():
            if found := [p.grad for p in parameters if p.grad is not None]:
                pulled[path] = found
        if not pulled:
            return
        norms = torch._foreach_norm([t for tensors in pulled.values() for t in tensors])
        squares = torch.stack([norm.float() for norm in norms]).square()
        sizes = tuple(tuple(t.numel() for t in tensors) for tensors in pulled.values())
        means = (self._matrix(sizes, squares.device) @ squares).sqrt()
        paths = tuple(pulled)
        before = self._sums.get(paths)
        self._sums[paths] = means if before is None else before + means
        self._counts[paths] = self._counts.get(paths, 0) + 1

    def mean(self, path: str) -> float | None:
        """Of one slot, None where no gradient was seen. Waits for the device."""
        those = [paths for paths in self._sums if path in paths]
        if not those:
            return None
        total = sum(float(self._sums[paths][paths.index(path)]) for paths in those)
        return total / sum(self._counts[paths] for paths in those)

    def state_dict(self) -> dict[str, Any]:
        """What was observed so far."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    def _matrix(self, sizes: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
        """From squared norms of tensors to mean squares of slots: a row for each slot."""
        if self._averaging is None or self._averaging[0] != sizes:
            rows = [
                [
                    1.0 / sum(own) if owner == row else 0.0
                    for owner, its in enumerate(sizes)
                    for _ in its
                ]
                for row, own in enumerate(sizes)
            ]
            self._averaging = (sizes, torch.tensor(rows, device=device))
        return self._averaging[1]
