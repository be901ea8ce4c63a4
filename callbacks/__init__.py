"""Lightning callbacks: thin adapters, one per file.

``Kasmina`` and ``Tamiyo`` make a module grow; the others only observe. ``CometLogger``,
``NeptuneLogger`` and ``DurableCheckpointIO`` stand in where Lightning's own do not do.
"""

from esper_lightning.callbacks.comet_logger import CometLogger
from esper_lightning.callbacks.durable_checkpoints import DurableCheckpointIO
from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.governor import Governor
from esper_lightning.callbacks.growth_figure import GrowthFigure
from esper_lightning.callbacks.journal import Journal
from esper_lightning.callbacks.kasmina import Kasmina
from esper_lightning.callbacks.live_table import LiveTable
from esper_lightning.callbacks.logger_events import LoggerEvents
from esper_lightning.callbacks.neptune_logger import NeptuneLogger
from esper_lightning.callbacks.nissa import Nissa
from esper_lightning.callbacks.oona import Oona
from esper_lightning.callbacks.summary import Summary
from esper_lightning.callbacks.tamiyo import Tamiyo
from esper_lightning.callbacks.tezzeret import Tezzeret
from esper_lightning.callbacks.training_flops import TrainingFlops

__all__ = [
    "CometLogger",
    "DurableCheckpointIO",
    "Governor",
    "GrowthFigure",
    "Journal",
    "Kasmina",
    "LiveTable",
    "LoggerEvents",
    "NeptuneLogger",
    "Nissa",
    "Oona",
    "Summary",
    "Tamiyo",
    "Tezzeret",
    "TrainingFlops",
    "find",
]
