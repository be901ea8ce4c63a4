"""Gradients and statistics of live seeds, averaged over the ranks beside those of the host."""

from collections.abc import Iterable

import torch
from torch import nn

from esper_lightning.kasmina.ranks import Ranks
from esper_lightning.kasmina.slot import SeedSlot


def average_seeds(slots: Iterable[SeedSlot], ranks: Ranks) -> None:
    """Before an optimiser step: live seeds are the same on all ranks after it.

    Live seeds are not among what ``DistributedDataParallel`` reduces. The host's buckets, and with
    them the order in which its gradients are summed, are therefore those of the host alone.
    Floating-point buffers (running statistics) become their mean over the ranks.

    A parameter that this rank has no gradient of counts as 0; only a seed in shadow incubation is
    left out where there is none, as between two of its passes, which all ranks make together.

    Args:
        slots: of the network.
        ranks: that train it.
    """
    if ranks.alone:
        return
    tensors = []
    for slot in slots:
        if slot.seed is None or not slot.trains:
            continue
        trained = [p for p in slot.seed.parameters() if p.requires_grad]
        if slot.incubates_in_shadow and all(p.grad is None for p in trained):
            continue
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            tensors.append(parameter.grad)
        tensors += [buffer for buffer in slot.seed.buffers() if buffer.is_floating_point()]
    ranks.average(tensors)


def syncs_batch_norm(network: nn.Module) -> bool:
    """Whether batch statistics are those of all ranks (``sync_batchnorm=True``)."""
    return any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
