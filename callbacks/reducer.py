"""``DistributedDataParallel`` kept in step with what has grown."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from esper_lightning.kasmina import SeedBed


class Reducer:
    """Has the gradients of host and fossils reduced, and of no live seed.

    A ``DistributedDataParallel`` reduces the parameters that it found when it was made. So it is
    made anew when a seed has become a fossil, or a fossil is gone; what grows until then is reduced
    by :func:`~esper_lightning.kasmina.average_seeds`.
    """

    def __init__(self) -> None:
        self._reduced: list[nn.Parameter] = []

    def begin(self, trainer: Trainer, module: LightningModule, bed: SeedBed) -> None:
        """The strategy has just wrapped the module, live seeds of a resumed run included."""
        self._reduced = _trained(module)
        self.follow(trainer, module, bed)

    def follow(self, trainer: Trainer, module: LightningModule, bed: SeedBed) -> None:
        """Wrap the module anew if other parameters than before are the host's or the fossils'."""
        strategy = trainer.strategy
        if not isinstance(strategy.model, DistributedDataParallel):
            return
        assert isinstance(strategy, DDPStrategy)
        seeds = [p for slot in bed.slots.values() if slot.seed for p in slot.seed.parameters()]
        with _frozen(seeds):
            reduced = _trained(module)
            if list(map(id, reduced)) == list(map(id, self._reduced)):
                return
            self._reduced = reduced
            strategy.model = module
            gc.collect()  # the hooks of the old one must be gone before there are new ones
            strategy.configure_ddp()


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
