"""Slots that the host calls in one phase of a run and goes around in another."""

import functools
from collections.abc import Mapping
from enum import Enum
from typing import Any

from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import SlotUnsuitable


class Phase(Enum):
    """A part of a run: what the run does, not the mode of a module.

    A frozen block may be in eval mode all along.
    """

    TRAINING = "training"
    VALIDATION = "validation"


class PhaseCalls:
    """In which phases of a run each slot is called.

    Hosts may use a module's weights without calling it: ``nn.TransformerEncoderLayer`` goes around
    its linear layers in eval mode. A seed in such a slot would train and then not be there.

    A slot is observed up to its first call in a phase; once every phase was observed to its end
    nothing is. Its ``forward`` is observed rather than hooked: torch's encoder layers do not take
    their bypass while a hook is there.

    Args:
        slots: by module path.
    """

    def __init__(self, slots: Mapping[str, SeedSlot]) -> None:
        self._slots = slots
        self._seen: dict[str, set[Phase]] = {path: set() for path in slots}
        self._complete: set[Phase] = set()
        self._phase: Phase | None = None
        self._observed: set[str] = set()

    def begin(self, phase: Phase) -> None:
        """What runs from here on belongs to ``phase``; may be called again within it."""
        if phase is self._phase:
            return
        self.close()
        self._phase = phase
        if phase in self._complete:
            return
        for path, slot in self._slots.items():
            if phase not in self._seen[path]:
                setattr(slot, "forward", functools.partial(self._notice, path))  # noqa: B010
                self._observed.add(path)

    def end(self, phase: Phase) -> None:
        """A whole pass through ``phase`` is over.

        Raises:
            SlotUnsuitable: a slot is called in another phase and was not in this one. A slot that
                this phase missed may also be refused later, at its first call in another.
        """
        self.close()
        self._complete.add(phase)
        for path in self._slots:
            self._check(path)

    def close(self) -> None:
        """Stop observing."""
        for path in list(self._observed):
            self._leave(path)
        self._phase = None

    def _notice(self, path: str, *args: Any, **kwargs: Any) -> Any:
        assert self._phase is not None
        self._seen[path].add(self._phase)
        self._leave(path)
        self._check(path)
        return self._slots[path].forward(*args, **kwargs)

    def _leave(self, path: str) -> None:
        self._observed.discard(path)
        vars(self._slots[path]).pop("forward", None)

    def _check(self, path: str) -> None:
        seen = self._seen[path]
        for missed in self._complete - seen:
            if seen:
                other = min(phase.value for phase in seen)
                around = path.rpartition(".")[0]
                hint = f"such as the one around it, {around!r}" if around else "such as a block"
                raise SlotUnsuitable(
                    f"slot {path!r} is bypassed in {missed.value}, though {other} calls it: "
                    f"the host uses its weights directly there (as nn.TransformerEncoderLayer "
                    f"does in eval mode) or leaves it out, and a seed in it would be missing; "
                    f"choose a module that is called in both, {hint}"
                )
