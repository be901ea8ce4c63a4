"""The MLP: hidden layers that are widened."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from esper_lightning.evidence.published.hosts import Widths
from esper_lightning.evidence.published.methods import ReLU, gromo
from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tolaria import MLP, SplitDataModule

DEPTH = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowingMLP:
    """Two hidden layers; a :class:`~esper_lightning.evidence.published.hosts.GrowingHost`.

    Attributes:
        width: of the hidden layers to begin with.
    """

    width: int = 8

    @property
    def slots(self) -> Sequence[str]:
        """The hidden layers."""
        return [f"layers.{index}" for index in range(DEPTH)]

    @property
    def budget(self) -> GrowthBudget:
        """Multiples of the host's parameters and FLOPs."""
        return GrowthBudget(max_growth=4.0, max_flops_growth=8.0)

    @property
    def thin(self) -> Widths:
        """To begin with."""
        return (self.width,) * DEPTH

    def ours(self, data: SplitDataModule) -> nn.Module:
        """The thin host, for seeds."""
        return MLP(
            input_shape=data.input_shape,
            num_classes=_classes(data),
            width=self.width,
            depth=DEPTH,
        )

    def theirs(self, data: SplitDataModule, widths: Widths) -> Any:
        """A model of ``gromo``; all widths are the same to begin with."""
        return gromo("containers.growing_mlp").GrowingMLP(
            in_features=math.prod(data.input_shape),
            out_features=data.num_classes,
            hidden_size=widths[0],
            number_hidden_layers=DEPTH,
            activation=ReLU(),
            device=torch.device("cpu"),
        )

    def widths_of(self, data: SplitDataModule, parameters: int) -> Widths:
        """Of the MLP whose number of parameters is nearest."""
        inputs, classes = math.prod(data.input_shape), _classes(data)

        def distance(width: int) -> int:
            hidden = (DEPTH - 1) * (width + 1) * width
            return abs((inputs + 1) * width + hidden + (width + 1) * classes - parameters)

        return (min(range(1, parameters // inputs + 2), key=distance),) * DEPTH

    def widths_in(self, net: Any) -> Widths:
        """Of a model of ``gromo``."""
        return tuple(net.layers[index].out_features for index in range(DEPTH))


def _classes(data: SplitDataModule) -> int:
    assert data.num_classes is not None
    return data.num_classes
