"""Grown networks for elsewhere: a ``torch.export`` program, and source that needs torch alone."""

from esper_lightning.kasmina.export.errors import NotExportable
from esper_lightning.kasmina.export.program import save_program
from esper_lightning.kasmina.export.source import save_source

__all__ = ["NotExportable", "save_program", "save_source"]
