"""Second passes through a network, beside the one that trains it, that leave no trace."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from esper_lightning.kasmina.random_stream import undisturbed_random
from esper_lightning.kasmina.slot import Pass, SeedSlot

Loss = Callable[[], Tensor]
"""Runs the network forward on one batch and returns the loss; logs nothing, updates no metric."""


@contextmanager
def second_pass(network: nn.Module, slots: Mapping[str, SeedSlot], kind: Pass) -> Iterator[None]:
    """Run ``network`` again inside, its isolated seeds taking part as ``kind`` says.

    The network stays in the mode in which it is. Afterwards its buffers and the random generators
    are those from before, as tensors and bit for bit; the seeds' own streams are too, but for those
    of seeds that are trained here. Gradients of parameters are not put back: take those of this
    pass with ``torch.autograd.grad``, which leaves them alone.

    Args:
        network: all that the loss runs through.
        slots: of it, by path.
        kind: of pass.
    """
    device = next((parameter.device for parameter in network.parameters()), None)
    held = [(module, dict(module._buffers)) for module in network.modules()]
    copies = {
        id(buffer): buffer.detach().clone()
        for _, buffers in held
        for buffer in buffers.values()
        if buffer is not None
    }
    streams = [
        (slot, slot.random.state())
        for slot in slots.values()
        if slot.seed is not None and not (kind is Pass.SHADOW and slot.incubates_in_shadow)
    ]
    before = {path: (slot.passing, slot.listening) for path, slot in slots.items()}
    for module, buffers in held:
        for name, buffer in buffers.items():
            if buffer is not None:
                module._buffers[name] = copies[id(buffer)]
    for slot in slots.values():
        slot.passing, slot.listening = kind, False
    try:
        with undisturbed_random(device), torch.enable_grad():
            yield
    finally:
        for path, slot in slots.items():
            slot.passing, slot.listening = before[path]
        for slot, state in streams:
            slot.random.restore(state)
        for module, buffers in held:
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def frozen_but(network: nn.Module, kept: Iterable[nn.Parameter]) -> Iterator[None]:
    """Only ``kept`` need gradients inside: no graph is built for anything before them."""
    keep = {id(parameter) for parameter in kept}
    frozen = [
        parameter
        for parameter in network.parameters()
        if parameter.requires_grad and id(parameter) not in keep
    ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
