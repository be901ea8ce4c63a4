"""The last boundaries of a run, to try a policy on, and to tell one what it has missed."""

from collections import deque
from collections.abc import Iterable

from esper_lightning.leyline import SystemState

RECORDED = 32
"""Boundaries that are kept: enough to meet seeds in every stage, and few enough to be decided on
again in a moment, and to lie in a checkpoint."""


class History:
    """States in the order in which they were seen.

    Args:
        states: the last of those that were seen before.
        num_seen: how many were.

    Attributes:
        num_seen: how many were seen, those included that are not kept any more.
    """

    def __init__(self, states: Iterable[SystemState] = (), *, num_seen: int = 0) -> None:
        self._states = deque(states, maxlen=RECORDED)
        self.num_seen = max(num_seen, len(self._states))

    def take(self, state: SystemState) -> None:
        """The next one."""
        self._states.append(state)
        self.num_seen += 1

    def leave(self, state: SystemState) -> None:
        """Forget the last one if it is this one: it is about to be seen once more."""
        if self._states and self._states[-1] == state:
            self._states.pop()
            self.num_seen -= 1

    def since(self, num_seen: int) -> list[SystemState]:
        """What came after the first so many, as far as it is kept."""
        num = max(0, self.num_seen - num_seen)
        return list(self._states)[-num:] if num else []
