"""Whether a written network does what the original does."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from esper_lightning.kasmina.export.errors import NotExportable
from esper_lightning.kasmina.export.example import Example, difference, flat
from esper_lightning.kasmina.random_stream import undisturbed_random

_GRADIENT_TOLERANCE = 1e-3
"""Of a gradient, over its largest element; a hundredth of it over the largest of the network. What
is missing shows, in which order was summed does not."""


def check(
    written: nn.Module,
    parameters: Mapping[str, str],
    network: nn.Module,
    sizes: Sequence[Example],
    expected: Sequence[list[Any]],
) -> None:
    """Run what was written, and compare it.

    Args:
        written: with its weights.
        parameters: names in the network by those in the written one.
        network: without slots, for its outputs and gradients in training mode.
        sizes: batches to run it on.
        expected: outputs of the original in eval mode, for each of them.

    Raises:
        NotExportable: an output differs by more than 1e-6, or a gradient.
    """
    written.to(next((tensor.device for tensor in network.parameters()), None))
    for given, outputs in zip(sizes, expected, strict=True):
        found = difference(outputs, given.only_tensors().through(written))
        if found:
            raise NotExportable(f"written down, it does something else in eval mode: {found}")
    outputs, wanted = _trained(copy.deepcopy(network).train(), sizes[0])
    returned, gradients = _trained(written.train(), sizes[0].only_tensors())
    found = difference(outputs, returned)
    if found:
        raise NotExportable(f"written down, it does something else in training mode: {found}")
    largest = max([0.0, *(float(g.abs().max()) for g in wanted.values() if g is not None)])
    for name, source in parameters.items():
        if not _close(wanted.get(source), gradients.get(name), largest):
            raise NotExportable(f"written down, the gradient of {source} is another")


def _trained(network: nn.Module, given: Example) -> tuple[list[Any], dict[str, Tensor | None]]:
    """Outputs in training mode, and the gradients of the sum of their squares."""
    device = next((tensor.device for tensor in network.parameters()), None)
    with undisturbed_random(device), torch.enable_grad():
        torch.manual_seed(0)
        outputs = flat(given.call(network))
        squares = [
            output.square().sum()
            for output in outputs
            if isinstance(output, Tensor) and output.requires_grad
        ]
        if squares:
            torch.autograd.backward(squares)
    named = network.named_parameters(remove_duplicate=False)
    outputs = [each.detach() if isinstance(each, Tensor) else each for each in outputs]
    return outputs, {name: parameter.grad for name, parameter in named}


def _close(one: Tensor | None, other: Tensor | None, largest: float) -> bool:
    if one is None or other is None:
        return one is other
    scale = _GRADIENT_TOLERANCE * (float(one.abs().max()) + 0.01 * largest)
    return torch.allclose(one, other, rtol=0.0, atol=scale, equal_nan=True)
