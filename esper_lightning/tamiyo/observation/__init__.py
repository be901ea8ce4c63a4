"""What a policy that computes sees of a boundary: rows of numbers without units, and a graph."""

from esper_lightning.tamiyo.observation.history import History
from esper_lightning.tamiyo.observation.observation import KINDS, VERSION, Observation
from esper_lightning.tamiyo.observation.observer import USUAL, Observer
from esper_lightning.tamiyo.observation.pairs import SHARES
from esper_lightning.tamiyo.observation.run import BLANK

__all__ = ["BLANK", "KINDS", "SHARES", "USUAL", "VERSION", "History", "Observation", "Observer"]
