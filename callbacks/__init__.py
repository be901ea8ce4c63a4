"""Lightning callbacks: thin adapters, one per file.

``Kasmina`` and ``Tamiyo`` make a module grow; the others only observe.
"""

from esper_lightning.callbacks.growth_figure import GrowthFigure
from esper_lightning.callbacks.journal import Journal
from esper_lightning.callbacks.kasmina import Kasmina, find
from esper_lightning.callbacks.live_table import LiveTable
from esper_lightning.callbacks.summary import Summary
from esper_lightning.callbacks.tamiyo import Tamiyo

__all__ = ["GrowthFigure", "Journal", "Kasmina", "LiveTable", "Summary", "Tamiyo", "find"]
