"""The events of a run, for whoever listens."""

from collections.abc import Callable
from functools import partial

from esper_lightning.leyline import Event

Listener = Callable[[Event], None]


class EventStream:
    """Events in the order in which they happened; who comes late hears those before, too."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every event, those that have been included; once is enough.

        Returns:
            What ends it.
        """
        if listener not in self._listeners:
            self._listeners.append(listener)
            for event in self.events:
                listener(event)
        return partial(self._forget, listener)

    def emit(self, *events: Event) -> None:
        """Tell everyone."""
        for event in events:
            self.events.append(event)
            for listener in tuple(self._listeners):
                if listener in self._listeners:  # it may have gone meanwhile
                    listener(event)

    def _forget(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
