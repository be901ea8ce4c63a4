"""What happens to slots within a training step. Nothing here waits for the device."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from esper_lightning.kasmina import gradients
from esper_lightning.kasmina.blending import alpha_at
from esper_lightning.kasmina.evidence import Running, SlotEvidence
from esper_lightning.kasmina.pressure import Pressure
from esper_lightning.kasmina.ranks import Ranks
from esper_lightning.kasmina.slot import SeedSlot

PRESSURE_EVERY = 8
"""Steps between two looks at the host's own gradients at the slots."""


class StepWatch:
    """Moves alpha, guards the host from seed gradients, and gathers an epoch's evidence.

    In every training step, in this order: :meth:`before_step`, :meth:`after_backward`,
    :meth:`before_optimizer_step`, :meth:`clip_seeds` where the host is clipped, :meth:`after_step`.

    Args:
        slots: by module path.
    """

    def __init__(self, slots: Mapping[str, SeedSlot]) -> None:
        self._slots = slots
        self.start_epoch()

    def start_epoch(self) -> None:
        """Begin to gather anew; let every slot keep a sample of the next forward pass."""
        self.loss = Running()
        self.evidence = {path: SlotEvidence() for path in self._slots}
        self.pressure = Pressure(self._slots)
        for slot in self._slots.values():
            slot.listen()

    def before_step(self, step: int) -> None:
        """Move the alpha ramps to ``step`` optimiser steps since the start of the run."""
        for slot in self._slots.values():
            record = slot.record
            if record.ramp_start is None or record.seed is None or record.paused:
                continue
            progress = alpha_at(record.seed.blend, step - record.ramp_start)
            slot.set_alpha(progress if not record.ramp_from else record.ramp_from * (1 - progress))

    def after_backward(self, *, skipped: Tensor | None = None) -> None:
        """Drop seed gradients that are not finite, before anything shared looks at them.

        Args:
            skipped: 1 where the whole step is going to be skipped, 0 where not, 0-dimensional; what
                is dropped then is not held against the seed. None where no step ever is.
        """
        for path, found in self._seed_gradients().items():
            dropped = gradients.drop_if_not_finite(found)
            held = dropped if skipped is None else dropped * (1 - skipped)
            self.evidence[path].dropped.add(held)

    def before_optimizer_step(self, step: int) -> None:
        """Measure gradients: of live seeds always, of the host at the slots every few steps."""
        for path, found in self._seed_gradients().items():
            self.evidence[path].gradient_norm.add(gradients.total_norm(found))
        if step % PRESSURE_EVERY == 0:
            self.pressure.observe()

    def clip_seeds(self, *, norm: float | None = None, value: float | None = None) -> None:
        """Clip every live seed by itself, as the host is clipped by itself."""
        for found in self._seed_gradients().values():
            if norm is not None:
                gradients.clip_norm(found, norm)
            if value is not None:
                gradients.clip_value(found, value)

    def after_step(self, loss: Tensor | None) -> None:
        """Take note of the training loss; see who overwrote a slot's input."""
        if loss is not None:
            self.loss.add(loss)
        for slot in self._slots.values():
            if slot.listening:
                slot.settle()

    def state_dict(self) -> dict[str, Any]:
        """What this epoch has told so far, for a checkpoint within it."""
        return {
            "loss": self.loss.state_dict(),
            "pressure": self.pressure.state_dict(),
            "slots": {
                path: {
                    "gradient_norm": self.evidence[path].gradient_norm.state_dict(),
                    "dropped": self.evidence[path].dropped.state_dict(),
                    "sample": slot.sample,
                }
                for path, slot in self._slots.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on gathering from :meth:`state_dict`; its tensors are on the slots' device."""
        self.start_epoch()
        self.loss.load_state_dict(state["loss"])
        self.pressure.load_state_dict(state["pressure"])
        for path, slot in self._slots.items():
            told = state["slots"][path]
            self.evidence[path].gradient_norm.load_state_dict(told["gradient_norm"])
            self.evidence[path].dropped.load_state_dict(told["dropped"])
            slot.sample = told["sample"]
            slot.listening = slot.sample is None

    def agree(self, ranks: Ranks) -> None:
        """Let every rank know what all of them saw in this epoch.

        Losses and dropped gradients are those of all ranks; gradients were averaged in each step;
        the sample, and the shapes that were learned from it, are those of the first rank.
        """
        if ranks.alone:
            return
        told = ranks.gather(
            {
                "loss": self.loss.state_dict(),
                "slots": {path: self._told(path, slot) for path, slot in self._slots.items()},
            }
        )
        self.loss.merge(state["loss"] for state in told)
        for path, slot in self._slots.items():
            those = [state["slots"][path] for state in told]
            self.evidence[path].dropped.merge(each["dropped"] for each in those)
            slot.record.mutates_input = any(each["mutates_input"] for each in those)
            slot.record.shape, slot.sample = those[0]["shape"], _on(slot, those[0]["sample"])

    def _told(self, path: str, slot: SeedSlot) -> dict[str, Any]:
        return {
            "dropped": self.evidence[path].dropped.state_dict(),
            "mutates_input": slot.record.mutates_input,
            "shape": slot.record.shape,
            "sample": slot.sample,
        }

    def _seed_gradients(self) -> dict[str, list[Tensor]]:
        found = {
            path: gradients.gradients_of(slot.seed)
            for path, slot in self._slots.items()
            if slot.record.seed is not None and slot.seed is not None and slot.trains
        }
        return {path: tensors for path, tensors in found.items() if tensors}


def _on(slot: SeedSlot, sample: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
    """A sample of another rank, on the device of this one."""
    if sample is None:
        return None
    device = slot.alpha.device
    return sample[0].to(device), sample[1].to(device)
