"""Shadow incubation: a seed trains on what its own output would do to the loss."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from esper_lightning.kasmina.passes import Loss, frozen_but, gradients_of_pass, second_pass
from esper_lightning.kasmina.slot import Pass, SeedSlot


def in_shadow(slots: Mapping[str, SeedSlot]) -> list[SeedSlot]:
    """The slots whose seed trains in shadow now."""
    return [slot for slot in slots.values() if slot.incubates_in_shadow]


def is_due(batch: int, share: float) -> bool:
    """Whether a batch is among the evenly spread ``share`` of an epoch's batches.

    >>> [batch for batch in range(8) if is_due(batch, 0.5)]
    [0, 2, 4, 6]
    >>> all(is_due(batch, 1.0) for batch in range(8))
    True
    """
    return math.ceil(batch * share) < math.ceil((batch + 1) * share)


def shadow_step(
    network: nn.Module, slots: Mapping[str, SeedSlot], loss: Loss, *, scale: float | Tensor = 1.0
) -> None:
    """Add the gradient of a second pass to that of every seed in shadow incubation.

    All of them take part in one pass, so that each learns what the others leave to do. The host's
    parameters are frozen in it, its buffers and random numbers stay as they were. A seed whose
    output is not finite, or many times larger than the host's, is left out of the pass.

    Args:
        network: all that the loss runs through.
        slots: of it, by path.
        loss: runs the network on this step's batch.
        scale: of the gradient, as the loss of the step itself is scaled.
    """
    for parameter, gradient in shadow_gradients(network, slots, loss, scale=scale):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def shadow_gradients(
    network: nn.Module,
    slots: Mapping[str, SeedSlot],
    loss: Loss,
    *,
    scale: float | Tensor = 1.0,
    taking_part: Mapping[str, SeedSlot] | None = None,
) -> list[tuple[nn.Parameter, Tensor]]:
    """Gradients of one shadow pass, of those parameters of seeds that it reached.

    Args:
        network: all that the loss runs through.
        slots: of it, by path.
        loss: runs the network on this step's batch.
        scale: of the gradients.
        taking_part: the slots whose seeds are in the pass; None for all that are in shadow.
    """
    there = in_shadow(slots if taking_part is None else taking_part)
    trained = [
        p
        for slot in there
        if slot.seed is not None
        for p in slot.seed.parameters()
        if p.requires_grad
    ]
    if not trained:
        return []
    with second_pass(network, slots, Pass.SHADOW), frozen_but(network, trained):
        for slot in in_shadow(slots):
            if slot not in there:
                slot.passing = Pass.WITHOUT
        value = loss() * scale
        if not value.requires_grad:  # the host called none of their slots on this batch
            return []
        found = gradients_of_pass(value, trained)
    return [(p, g) for p, g in zip(trained, found, strict=True) if g is not None]
