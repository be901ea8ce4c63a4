"""How slots are called in training: what compiled code has to be made for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from esper_lightning.kasmina import SeedSlot
from esper_lightning.kasmina.feature_maps import first_argument


@dataclass(frozen=True)
class Seen:
    """A tensor at a slot in a training step.

    Attributes:
        rows: of the batch.
        dtype: as ``float32``.
        device: its type.
        channels_last: its memory format.
        requires_grad: whether a gradient flows through it.
    """

    rows: int
    dtype: str
    device: str
    channels_last: bool
    requires_grad: bool

    @classmethod
    def of(cls, tensor: Tensor) -> "Seen":
        """Of a tensor of at least one dimension."""
        return cls(
            rows=tensor.shape[0],
            dtype=str(tensor.dtype).removeprefix("torch."),
            device=tensor.device.type,
            channels_last=tensor.ndim == 4
            and not tensor.is_contiguous()
            and tensor.is_contiguous(memory_format=torch.channels_last),
            requires_grad=tensor.requires_grad,
        )


class CallsSeen:
    """Looks, while it is open, at the first call of each slot that trains.

    It hooks slots, and a host may run otherwise while a hook is there, as an
    ``nn.TransformerEncoderLayer`` in eval mode does: it is opened for a training step and closed
    after it. What runs under autocast is not seen, since compiled code does not run there.

    Args:
        slots: by their paths.

    Attributes:
        inputs: what each slot's module was given.
        outputs: what the slot returned.
    """

    def __init__(self, slots: Mapping[str, SeedSlot]) -> None:
        self.inputs: dict[str, Seen] = {}
        self.outputs: dict[str, Seen] = {}
        self._slots = slots
        self._hooks: dict[str, Any] = {}

    def open(self) -> None:
        """Look at slots that were not seen yet."""
        self.close()
        for path, slot in self._slots.items():
            if path not in self.inputs:
                self._hooks[path] = self._watch(path, slot)

    def close(self) -> None:
        """Look no longer."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def _watch(self, path: str, slot: SeedSlot) -> Any:
        def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if not torch.is_grad_enabled() or not isinstance(output, Tensor):
                return
            given = first_argument(slot.base_layer, args, kwargs)
            if isinstance(given, Tensor) and not torch.is_autocast_enabled(given.device.type):
                self.inputs[path], self.outputs[path] = Seen.of(given), Seen.of(output)
                self._hooks.pop(path).remove()

        return slot.register_forward_hook(look, with_kwargs=True)
