"""Hosts for tests of grafting, and ways to look at them."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esper_lightning.kasmina import SeedSlot, probing
from esper_lightning.kasmina import lifecycle as stages
from esper_lightning.leyline import GrownSeed


class Block(nn.Module):
    """Convolution, norm, activation."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, features, 3, padding=1)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Trunk(nn.Module):
    """Stem, blocks in a list, norm, dropout, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.norm = nn.GroupNorm(2, 4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        output: Tensor = self.head(self.dropout(self.norm(x)).mean((2, 3)))
        return output


class Wrapped(nn.Module):
    """A module whose whole output is made by another, as in many a LightningModule."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(x)
        return output


IMAGE = torch.linspace(-1, 1, 2 * 8 * 8).view(2, 1, 8, 8)


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules()]


def trace(model: nn.Module) -> dict[str, Any]:
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
        for module in model.modules()
    ]
    return {
        "modules": [(name, id(module)) for name, module in model.named_modules()],
        "state": {k: v.tolist() for k, v in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "hooks": hooks,
        "torch": torch.get_rng_state().tolist(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state(legacy=True)],
        "python": random.getstate(),
    }


def grow(slots: dict[str, SeedSlot], model: nn.Module) -> None:
    """A fossil and a coupled seed in every slot, with weights that matter."""
    with probing(model):
        model(IMAGE)
    for number, slot in enumerate(slots.values()):
        fossil = slot.construct("loud", {}, rng_seed=number)
        stages.add_fossil(slot, fossil, GrownSeed(slot=slot.path, blueprint="loud"))
