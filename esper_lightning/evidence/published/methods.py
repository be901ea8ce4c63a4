"""The published methods: one growth event of a network of ``gromo``."""

import importlib
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper_lightning.evidence.flops import flops_of, sample_flops
from esper_lightning.tolaria import SplitDataModule

SCALES = (0.1, 0.5, 1.0)
"""What the line search of TINY tries, the ones of the tutorials of ``gromo`` without 0."""

METHODS: Mapping[str, Mapping[str, bool]] = {
    "TINY": {
        "compute_delta": False,
        "use_covariance": True,
        "alpha_zero": False,
        "omega_zero": False,
        "use_projection": True,
        "ignore_singular_values": False,
    },
    "GradMax": {
        "compute_delta": False,
        "use_covariance": False,
        "alpha_zero": True,
        "omega_zero": False,
        "use_projection": False,
        "ignore_singular_values": True,
    },
}
"""Settings of ``gromo`` that are the published methods, by its documentation."""


class ReLU(nn.Module):
    """ReLU whose derivative at 0 is 1, as GradMax needs: its neurons are born with 0 input."""

    def forward(self, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        return torch.where(x >= 0, x, 0.0)


def gromo(module: str) -> Any:
    """A module of the library, by its name in there.

    Raises:
        SystemExit: the library is not installed.
    """
    try:
        return importlib.import_module(f"gromo.{module}")
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: the published methods need `pip install 'esper-lightning[published]'`")


def grow(net: Any, data: SplitDataModule, *, layer: int, neurons: int, method: str) -> float:
    """Add neurons, or channels, to a hidden layer, as a method chooses them.

    Statistics and line search are over all training data in eval mode, as in the library's own
    loops. Norms inside of a block get the scale 1, the shift 0, the mean 0 and the variance 1 for
    what is new: the network in eval mode is the one that the line search saw.

    Args:
        net: a model of ``gromo``; in eval mode afterwards.
        data: whose training examples tell what to add.
        layer: the index among the layers that can grow.
        neurons: how many; fewer come where the statistics have a lower rank.
        method: a key of :data:`METHODS`.

    Returns:
        The FLOPs that it took: all passes over the data, and the sums of the statistics.
    """
    net.eval()
    net.set_growing_layers(index=layer)
    net.init_computation()
    samples, per_sample = 0, sample_flops(net, data.example_input())
    for x, y in data.train_dataloader():
        net.zero_grad()
        torch.autograd.backward(F.cross_entropy(net(x), y, reduction="sum"))
        if samples == 0:
            per_sample += flops_of(net.update_computation) / len(x)
        else:
            net.update_computation()
        samples += len(x)
    spent = samples * per_sample
    net.compute_optimal_updates(maximum_added_neurons=neurons, **METHODS[method])
    net.reset_computation()
    net.dummy_select_update()
    if method == "GradMax":
        net.currently_updated_layer.normalize_optimal_updates(
            normalization_type="gradmax_normalization"
        )
        scale = 1.0
    else:
        scale = min(SCALES, key=lambda tried: _loss_if(net, data, tried))
        x = data.example_input()
        spent += len(SCALES) * samples * flops_of(lambda: net.extended_forward(x)) / len(x)
    net.set_scaling_factor(scale)
    net.apply_change()
    net.zero_grad()
    return spent


@torch.no_grad()
def _loss_if(net: Any, data: SplitDataModule, scale: float) -> float:
    """On the training data, with the new neurons at that scale."""
    net.set_scaling_factor(scale)
    losses = [
        F.cross_entropy(net.extended_forward(x), y, reduction="sum").item()
        for x, y in data.train_dataloader()
    ]
    return math.fsum(losses)
