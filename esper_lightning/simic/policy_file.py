"""Observes only: writes the policy that was learned as a file."""

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.module import Simic

log = logging.getLogger(__name__)


class PolicyFile(Callback):
    """Observes only: at the end of a fit, the policy in plain layers and the adapters of it.

    Args:
        path: of the policy, for ``tamiyo.policy.policy=``; what is there is replaced. None writes
            none.
        adapters: folder of the adapters, as PEFT saves them; None writes none.
    """

    def __init__(
        self, path: Path | str | None = "policy.safetensors", adapters: Path | str | None = None
    ) -> None:
        self._path = None if path is None else Path(path)
        self._adapters = None if adapters is None else Path(adapters)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that has no policy.

        Raises:
            InvalidArgument: it is no Simic.
        """
        _simic(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        module = _simic(pl_module)
        if self._adapters is not None:
            module.adapted.save(self._adapters, version=module.version)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_name(self._path.name + ".part")
            part.write_bytes(module.merged().to_bytes())
            part.replace(self._path)
            log.info(
                "version %d is in %s; use it with tamiyo=learned tamiyo.policy.policy=%s",
                module.version,
                *[self._path] * 2,
            )


def _simic(module: LightningModule) -> Simic:
    if not isinstance(module, Simic):
        raise InvalidArgument(f"PolicyFile keeps the policy of Simic, got {type(module).__name__}")
    return module
