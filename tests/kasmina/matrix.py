"""Hosts and conditions of training under which the promises about seeds are tried."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper_lightning.karn import CATALOGUE, Blueprint, Tier
from esper_lightning.leyline import FeatureKind, Incubation

WIDTH = 8
SIZES = {FeatureKind.SPATIAL: (2, 6, 6), FeatureKind.TOKENS: (5, 3), FeatureKind.VECTOR: (5,)}

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a training step does, and what its host holds.

    Attributes:
        clip_norm: limit of the global gradient norm.
        clip_value: limit of each element of a gradient.
        accumulate: batches for each optimiser step.
        dropout: after the slot.
        batch_norm: before the slot.
        in_place: the slot's module overwrites its input, and its output is overwritten.
    """

    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    dropout: bool = False
    batch_norm: bool = False
    in_place: bool = False


CONDITIONS = {
    "plain": Condition(),
    "clip by norm": Condition(clip_norm=0.1),
    "clip by value": Condition(clip_value=0.01),
    "accumulation": Condition(accumulate=2),
    "dropout": Condition(dropout=True),
    "BatchNorm": Condition(batch_norm=True),
    "in-place": Condition(in_place=True),
    "all": Condition(clip_norm=0.1, accumulate=2, dropout=True, batch_norm=True, in_place=True),
}

BLUEPRINTS = [row for row in CATALOGUE.values() if row.tier is not Tier.ADVERSARIAL]
"""Those that are not built to do harm."""

PLANTINGS = [
    (blueprint, kind, incubation)
    for blueprint in BLUEPRINTS
    for kind in FeatureKind
    if kind in blueprint.kinds
    for incubation in Incubation
]
"""Every blueprint, on every kind of feature map that it takes, raised in every way."""


def planting_id(value: Any) -> str:
    return value.name if isinstance(value, Blueprint) else str(value.value)


@dataclass(frozen=True)
class Cell:
    """One way to train one seed."""

    blueprint: Blueprint
    kind: FeatureKind
    incubation: Incubation
    optimizer: str
    condition: str

    def __str__(self) -> str:
        return (
            f"{self.blueprint.name} on {self.kind.value}, {self.incubation.value}, "
            f"{self.optimizer}, {self.condition}"
        )


def cells(blueprint: Blueprint, kind: FeatureKind, incubation: Incubation) -> Iterator[Cell]:
    for optimizer in OPTIMIZERS:
        for condition in CONDITIONS:
            yield Cell(blueprint, kind, incubation, optimizer, condition)


class TokenNorm(nn.Module):
    """BatchNorm over the features of ``(B, T, D)``."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class MatrixHost(nn.Module):
    """Stem, the module ``mix`` that is to be a slot, head; with the traits of a condition."""

    def __init__(self, kind: FeatureKind, condition: Condition) -> None:
        super().__init__()
        spatial = kind is FeatureKind.SPATIAL
        features = SIZES[kind][0] if spatial else SIZES[kind][-1]
        norms = {
            FeatureKind.SPATIAL: nn.BatchNorm2d,
            FeatureKind.TOKENS: TokenNorm,
            FeatureKind.VECTOR: nn.BatchNorm1d,
        }
        inner = 4
        self.stem = (
            nn.Conv2d(features, inner, 3, padding=1) if spatial else nn.Linear(features, inner)
        )
        self.norm = norms[kind](inner) if condition.batch_norm else nn.Identity()
        mix = (
            nn.Conv2d(inner, WIDTH, 3, padding=1, stride=2) if spatial else nn.Linear(inner, WIDTH)
        )
        self.mix = nn.Sequential(nn.ReLU(inplace=True), mix) if condition.in_place else mix
        self.act = nn.ReLU(inplace=condition.in_place)
        self.dropout = nn.Dropout(0.3 if condition.dropout else 0.0)
        self.head = nn.Linear(WIDTH, 3)
        self.positions = (2, 3) if spatial else (1,) if kind is FeatureKind.TOKENS else ()

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.act(self.mix(self.norm(self.stem(x)))))
        return self.head(h.mean(self.positions) if self.positions else h)


def batch(kind: FeatureKind, number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(6, *SIZES[kind], generator=generator)
    return x, torch.randint(0, 3, (6,), generator=generator)


def seed_all() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def backward(network: nn.Module, kind: FeatureKind, number: int) -> dict[str, Tensor]:
    """One batch forward and back; what came out."""
    x, y = batch(kind, number)
    logits = network(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    return {"logits": logits.detach().clone(), "loss": loss.detach().clone()}


def host_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """All that belongs to the host, by the names that it has without slots."""
    state: dict[str, Any] = {}
    for name, parameter in network.named_parameters():
        if ".seed." in name or ".fossils." in name:
            continue
        name = name.replace(".base_layer", "")
        state[f"parameter {name}"] = parameter.detach().clone()
        if parameter.grad is not None:
            state[f"gradient {name}"] = parameter.grad.clone()
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimiser {key} of {name}"] = (
                value.clone() if isinstance(value, Tensor) else value
            )
    for name, buffer in network.named_buffers():
        if ".seed." not in name and ".fossils." not in name and not name.endswith(".alpha"):
            state[f"buffer {name.replace('.base_layer', '')}"] = buffer.clone()
    state["random stream of torch"] = torch.get_rng_state()
    state["random stream of NumPy"] = torch.from_numpy(np.random.get_state()[1].astype(np.int64))
    state["random stream of Python"] = random.getstate()
    return state


def same_bits(a: Any, b: Any) -> bool:
    """Equal bit for bit: NaN is NaN, and -0.0 is not 0.0."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.is_floating_point() and a.shape == b.shape and a.dtype == b.dtype:
            integers = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
            return torch.equal(a.contiguous().view(integers), b.contiguous().view(integers))
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of what is not the same in both."""
    names = sorted(a.keys() ^ b.keys())
    return names + [name for name in a.keys() & b.keys() if not same_bits(a[name], b[name])]
