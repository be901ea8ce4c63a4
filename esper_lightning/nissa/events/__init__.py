"""The event store: everything that happened, to be searched."""

from esper_lightning.nissa.events.store import EventStore, FoundEvent

__all__ = ["EventStore", "FoundEvent"]
