"""Evidence: what growth is worth, on runs that are matched by data, seed and schedule.

``python -m esper_lightning.evidence`` runs the arms as separate processes of ``train.py`` and
compares their ``summary.json``. With ``overhead``, ``incubation``, ``planting`` or ``memory``
behind it, it measures what dormant slots, seeds in isolation and a growth event cost, and what
planting and culling leave behind. Nothing imports this package.
"""

from esper_lightning.evidence.arms import Row, run_seed
from esper_lightning.evidence.table import render

__all__ = ["Row", "render", "run_seed"]
