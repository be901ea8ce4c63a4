"""Hosts and seeds for tests of Kasmina: small, and some of them hostile."""

import random
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from esper_lightning.kasmina import (
    Branch,
    BuildBranch,
    LifecycleRules,
    Moment,
    SeedBed,
    insert_slots,
)
from esper_lightning.kasmina.parameter_groups import add_slot_groups
from esper_lightning.leyline import (
    AdaptationCommand,
    Attachment,
    CommandKind,
    Incubation,
    Objective,
    ParameterValue,
    SlotShape,
    UnknownBlueprint,
)


class Host(nn.Module):
    """BatchNorm, dropout, an in-place ReLU right after a slot and one right before."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.mix = nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.mix(self.block(x)))
        return self.head(self.dropout(h.mean((2, 3))))


class Conv(Branch):
    """Ordinary; zero at birth."""

    attachment: ClassVar[Attachment] = Attachment.SERIES

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        features = shape.output.features
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.last = nn.Conv2d(features, features, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class Parallel(Branch):
    """Ordinary; reads the input of the wrapped module; zero at birth."""

    attachment: ClassVar[Attachment] = Attachment.PARALLEL

    def __init__(self, shape: SlotShape) -> None:
        super().__init__()
        stride = shape.input.sizes[1] // shape.output.sizes[1]
        self.first = nn.Conv2d(shape.input.features, 5, 3, padding=1, stride=stride)
        self.last = nn.Conv2d(5, shape.output.features, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class Loud(Conv):
    """Not zero at birth."""

    zero_at_birth: ClassVar[bool] = False

    def __init__(self, shape: SlotShape) -> None:
        super().__init__(shape)
        nn.init.normal_(self.last.weight, std=0.1)


class Nan(Conv):
    """Emits NaN once it trains."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out * float("nan") if self.training else out


class Exploding(Conv):
    """A gain of 1e30 once it trains: infinite within a step."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x) + self.first(x)
        return out * 1e30 * out.abs().exp() if self.training else out * 0


class Polluter(Conv):
    """Draws from every global generator, and overwrites what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        random.random()
        np.random.rand()
        noise = torch.rand_like(x)
        if self.training:
            x.mul_(2.0).add_(noise)
        return super().forward(x)


SEEDLINGS: Mapping[str, type[Conv] | type[Parallel]] = {
    "conv": Conv,
    "parallel": Parallel,
    "loud": Loud,
    "nan": Nan,
    "exploding": Exploding,
    "polluter": Polluter,
}


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    if name not in SEEDLINGS:
        raise UnknownBlueprint(f"{name!r}; there are {list(SEEDLINGS)}")
    return SEEDLINGS[name](shape, **parameters)  # type: ignore[call-arg]


def make_bed(
    host: nn.Module,
    *,
    paths: tuple[str, ...] = ("mix",),
    incubation: Incubation = Incubation.STRAIGHT_THROUGH,
    rules: LifecycleRules | None = None,
    make_optimizer: object = None,
    build: BuildBranch = build,
    example: Tensor | None = None,
    second_passes: bool = False,
) -> tuple[SeedBed, torch.optim.Optimizer]:
    """A bed that has seen one forward pass (of ``example``), and the optimiser it is bound to."""
    optimizer = (make_optimizer or (lambda p: torch.optim.AdamW(p, lr=0.01)))(host.parameters())  # type: ignore[operator]
    slots = insert_slots(host, paths, build=build)
    add_slot_groups(optimizer, slots)
    bed = SeedBed(
        host,
        slots,
        rules=rules or LifecycleRules(),
        incubation=incubation,
        fits=lambda _: True,
        second_passes=second_passes,
    )
    bed.bind(optimizer)
    with torch.random.fork_rng():
        host.eval()
        host(torch.randn(4, 1, 8, 8) if example is None else example)
        host.train()
    bed.wake(moment(-1))
    return bed, optimizer


def moment(epoch: int, *, objective: float | None = 1.0, last: bool = False) -> Moment:
    return Moment(
        run_id="run",
        epoch=epoch,
        step=(epoch + 1) * 10,
        objective=Objective(name="val/loss", value=objective),
        max_epochs=epoch + 1 if last else 100,
    )


def command(kind: CommandKind, slot: str = "mix", blueprint: str = "") -> AdaptationCommand:
    if kind is CommandKind.GERMINATE:
        blueprint = blueprint or "conv"
    return AdaptationCommand(
        id="1", run_id="run", kind=kind, slot=slot, blueprint=blueprint, reason="test"
    )


def batches(num: int, *, seed: int = 7) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(8, 1, 8, 8, generator=generator),
            torch.randint(0, 3, (8,), generator=generator),
        )
        for _ in range(num)
    ]
