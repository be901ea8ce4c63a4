"""What an export says no with."""

from esper_lightning.leyline import InvalidArgument


class NotExportable(InvalidArgument):
    """A network that cannot be exported as asked; nothing was written."""
