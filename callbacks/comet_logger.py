"""Lightning's Comet logger, with an offline mode that writes."""

from typing import Any

from lightning.pytorch.loggers import CometLogger as LightningCometLogger


class CometLogger(LightningCometLogger):
    """Logs to Comet, or with ``online=False`` to an archive in ``offline_directory``.

    Lightning disables an experiment that is to be offline, so that nothing is written:
    https://github.com/Lightning-AI/pytorch-lightning/issues/21617

    Args:
        online: whether to talk to the server.
        options: the other arguments of Lightning's ``CometLogger``.
    """

    def __init__(self, *, online: bool = True, **options: Any) -> None:
        self._wanted_online = online
        # None: what Lightning does not take for a wish to be disabled.
        super().__init__(online=online or None, **options)

    def _create_experiment(self) -> None:
        self._online = self._wanted_online
        super()._create_experiment()
