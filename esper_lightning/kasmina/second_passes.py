"""What goes on in a training step beside the step: shadow incubation and the isolation monitor."""

import logging
from collections.abc import Hashable, Mapping

from torch import Tensor, nn

from esper_lightning.kasmina.flops import FlopMeter
from esper_lightning.kasmina.isolation import disturbing, isolated_slots
from esper_lightning.kasmina.passes import Loss
from esper_lightning.kasmina.ranks import Ranks
from esper_lightning.kasmina.rules import LifecycleRules
from esper_lightning.kasmina.shadow import in_shadow, is_due, shadow_step
from esper_lightning.kasmina.slot import SeedSlot

log = logging.getLogger(__name__)


class SecondPasses:
    """Runs the second passes that are due after a step's backward pass, and bills them.

    Args:
        network: all that the loss runs through.
        slots: of it, by path.
        rules: how often.
        meter: whose bill they are on.
        ranks: that train the network; None for this process's.

    Attributes:
        checked_in: the last epoch in which isolation was checked.
    """

    def __init__(
        self,
        network: nn.Module,
        slots: Mapping[str, SeedSlot],
        *,
        rules: LifecycleRules,
        meter: FlopMeter,
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self.network = network
        self._slots = slots
        self._rules = rules
        self._meter = meter
        self.checked_in: int | None = None

    def are_due(self, *, epoch: int, batch: int) -> bool:
        """Whether any second pass belongs to this batch of this epoch."""
        if all(slot.record.seed is None for slot in self._slots.values()):
            return False
        return self._check_is_due(epoch) or self._shadow_is_due(batch)

    def run(
        self,
        loss: Loss,
        *,
        epoch: int,
        batch: int,
        size: int,
        topology: Hashable,
        scale: float | Tensor,
    ) -> None:
        """Check isolation, then train what is in shadow.

        Args:
            loss: runs the network on this batch.
            epoch: 0-based.
            batch: 0-based within the epoch.
            size: of the batch.
            topology: of the network, as the meter is told it.
            scale: of the loss whose gradients the optimiser is going to use.
        """
        if self._check_is_due(epoch):
            self.checked_in = epoch
            with self._meter.beside((topology, "isolation"), size, afresh=True):
                self._check(loss)
        if self._shadow_is_due(batch):
            with self._meter.beside((topology, "shadow"), size):
                shadow_step(self.network, self._slots, loss, scale=scale)

    def _shadow_is_due(self, batch: int) -> bool:
        return is_due(batch, self._rules.shadow_share) and bool(in_shadow(self._slots))

    def _check_is_due(self, epoch: int) -> bool:
        every = self._rules.monitor_every
        if every is None or self.checked_in == epoch:
            return False
        seeds = [self._slots[path].record.seed for path in isolated_slots(self._slots)]
        unchecked = any(seed is not None and seed.isolation_checks == 0 for seed in seeds)
        return unchecked or (bool(seeds) and epoch % every == 0)

    def _check(self, loss: Loss) -> None:
        checked = isolated_slots(self._slots)
        # What one rank found is true on all: each looked at a batch of its own.
        told = self._ranks.gather(disturbing(self.network, self._slots, loss))
        found = {path for paths in told for path in paths}
        for path in checked:
            slot, seed = self._slots[path], self._slots[path].record.seed
            assert seed is not None
            assert slot.seed is not None
            seed.isolation_checks += 1
            if path not in found:
                continue
            seed.isolation_violations += 1
            if self._ranks.rank == 0:
                log.warning(
                    "isolation violation %d of %d: the host is not the same with %s in slot %s",
                    seed.isolation_violations,
                    self._rules.max_violations,
                    seed.blueprint,
                    path,
                )
            if seed.isolation_violations >= self._rules.max_violations:
                seed.quarantined = True
                slot.seed.requires_grad_(False)
