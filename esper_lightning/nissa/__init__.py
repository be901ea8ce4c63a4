"""Nissa: seeing a run. Journal, tables and figures, all made from Leyline records alone.

The growth figure is not imported here, since matplotlib takes its time: ask for it by
``from esper_lightning.nissa.growth_figure import growth_figure``.

Design: docs/design/detailed_design/10-nissa.md
"""

from esper_lightning.nissa.journal import JournalWriter, read_journal
from esper_lightning.nissa.report import summary_text
from esper_lightning.nissa.slot_listing import slot_listing
from esper_lightning.nissa.slot_table import slot_table

__all__ = ["JournalWriter", "read_journal", "slot_listing", "slot_table", "summary_text"]
