"""The isolation monitor: is the host the same with a seed in training and without, bit for bit?"""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from esper_lightning.kasmina.passes import Loss, gradients_of_pass, second_pass
from esper_lightning.kasmina.random_stream import torch_generators
from esper_lightning.kasmina.shadow import shadow_gradients
from esper_lightning.kasmina.slot import Pass, SeedSlot
from esper_lightning.leyline import SeedStage

_NOISE = 10.0
"""A host that does not repeat itself bit for bit (atomic additions on a GPU) is disturbed when a
seed changes it by more than so many times what two equal passes differ by."""


class Trace(NamedTuple):
    """What one pass did to the host.

    Attributes:
        tensors: loss, gradients of the host's parameters (None where there is none), its buffers
            and torch's generators.
        others: everything else that must be the same: the generators of NumPy and Python, and how
            often parameters were written to.
    """

    tensors: tuple[Tensor | None, ...]
    others: object


def disturbing(network: nn.Module, slots: Mapping[str, SeedSlot], loss: Loss) -> list[str]:
    """Compare loss, gradients, buffers and generators of the host with and without isolated seeds.

    Costs two forward and backward passes; two more and one for each isolated seed where the host
    is not the same.

    Args:
        network: all that the loss runs through, in training mode.
        slots: of it, by path.
        loss: runs the network on one batch.

    Returns:
        The paths of the slots whose seed disturbs the host; all that are isolated where it cannot
        be told which.
    """
    isolated = isolated_slots(slots)
    before = _trace(network, slots, loss)
    disturbed = distance(_trace(network, slots, loss, *isolated), before)
    if disturbed == 0.0:
        return []
    # Both after the seeds have run: what they left behind for good is no noise of the host.
    without = _trace(network, slots, loss)
    noise = _NOISE * distance(_trace(network, slots, loss), without)
    if disturbed <= noise:
        return []
    alone = {path: distance(_trace(network, slots, loss, path), without) for path in isolated}
    return [path for path in isolated if alone[path] > noise] or isolated


def isolated_slots(slots: Mapping[str, SeedSlot]) -> list[str]:
    """Paths of the slots whose seed trains in isolation."""
    return [
        path
        for path, slot in slots.items()
        if slot.record.stage is SeedStage.TRAINING and slot.takes_part
    ]


def distance(a: Trace, b: Trace) -> float:
    """The largest difference between two traces, relative to the largest value of each tensor.

    0 means equal bit for bit; infinity stands for a difference that has no size.
    """
    if a.others != b.others or len(a.tensors) != len(b.tensors):
        return float("inf")
    return max((_apart(x, y) for x, y in zip(a.tensors, b.tensors, strict=True)), default=0.0)


def _apart(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    if a.shape != b.shape or a.dtype != b.dtype or a.layout != b.layout:
        return float("inf")
    if a.layout is not torch.strided:  # gradients of sparse embeddings
        a, b = a.to_dense(), b.to_dense()
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    size = float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-300))
    return size if size == size else float("inf")


def _trace(
    network: nn.Module, slots: Mapping[str, SeedSlot], loss: Loss, *taking_part: str
) -> Trace:
    """One pass in which of the isolated seeds only those of ``taking_part`` are there."""
    seeds = [slot.seed for slot in slots.values() if slot.seed is not None]
    theirs = {id(parameter) for seed in seeds for parameter in seed.parameters()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    shadowed = {path: slots[path] for path in taking_part if slots[path].incubates_in_shadow}
    if shadowed:
        # Its place is a pass of its own; what that leaves behind is seen in the one that follows.
        streams = {path: slot.random.state() for path, slot in shadowed.items()}
        shadow_gradients(network, slots, loss, taking_part=shadowed)
        for path, state in streams.items():
            slots[path].random.restore(state)
    versions = _versions(network)
    with second_pass(network, slots, Pass.WITHOUT):
        for path in taking_part:
            slots[path].passing = Pass.MAIN
        value = loss()
        found = gradients_of_pass(value, trained)
        gradients = [
            gradient
            for parameter, gradient in zip(trained, found, strict=True)
            if id(parameter) not in theirs
        ]
        theirs |= {id(buffer) for seed in seeds for buffer in seed.buffers()}
        buffers = [b.clone() for b in network.buffers() if id(b) not in theirs]
        others = (random.getstate(), _numpy_state(), _written(versions, _versions(network)))
        generators = [generator.get_state() for generator in torch_generators(value.device)]
    return Trace((value.detach(), *gradients, *buffers, *generators), others)


def _versions(network: nn.Module) -> list[int]:
    return [parameter._version for parameter in network.parameters()]


def _written(before: list[int], after: list[int]) -> list[int]:
    return [now - then for then, now in zip(before, after, strict=True)]


def _numpy_state() -> tuple[Any, ...]:
    state: Any = np.random.get_state()
    return (state[0], state[1].tobytes(), *state[2:])
