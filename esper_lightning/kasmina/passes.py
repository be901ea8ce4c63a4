"""Second passes through a network, beside the one that trains it, that leave no trace."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from esper_lightning.kasmina.random_stream import undisturbed_random
from esper_lightning.kasmina.slot import Pass, SeedSlot
from esper_lightning.leyline import UnsupportedTraining

Loss = Callable[[], Tensor]
"""Runs the network forward on one batch and returns the loss; logs nothing, updates no metric."""


@contextmanager
def second_pass(network: nn.Module, slots: Mapping[str, SeedSlot], kind: Pass) -> Iterator[None]:
    """Run ``network`` again inside, its isolated seeds taking part as ``kind`` says.

    The network stays in the mode in which it is. Afterwards its buffers and the random generators
    are those from before, as tensors and bit for bit; the seeds' own streams are too, but for those
    of seeds that are trained here. Gradients of parameters are not put back: take those of this
    pass with :func:`gradients_of_pass`, which leaves them alone.

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


def gradients_of_pass(value: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
    """Gradients of a second pass, None where none arrives; those of the step are left alone.

    Args:
        value: the loss of the pass.
        parameters: of which.

    Raises:
        UnsupportedTraining: the host checkpoints activations in the form of torch that works with
            ``backward()`` only.
    """
    try:
        return torch.autograd.grad(value, parameters, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise UnsupportedTraining(
            "the host checkpoints activations with use_reentrant=True, which has gradients for "
            "backward() only, and second passes (shadow incubation, the isolation monitor) take "
            "theirs apart from the step's; call torch.utils.checkpoint.checkpoint with "
            "use_reentrant=False, or do without second passes: LifecycleRules(monitor_every=None) "
            "and incubation 'straight_through' or 'direct'"
        ) from error
