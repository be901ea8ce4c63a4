"""What dormant slots and live seeds cost on a device, on a host of the size of a ResNet-18.

The host alone, with eight dormant slots, with three seeds in isolation, and with three that are
coupled, trained in turns of a few steps in one process.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import msgspec
import torch
from torch import Tensor, nn

from esper_lightning.callbacks import Kasmina
from esper_lightning.evidence.incubation import plant_everywhere
from esper_lightning.evidence.intervals import Interval, bootstrap, ratios
from esper_lightning.evidence.overhead import examples
from esper_lightning.evidence.report import table, write
from esper_lightning.evidence.side_by_side import Arm, Length, step_times
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import Incubation

BARE = "no slots"
SLOTS = [f"net.stages.{stage}.{block}" for stage in range(4) for block in range(2)]
SEEDED = SLOTS[1::2][:3]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One arm.

    Attributes:
        device: by name.
        host_parameters: of the host.
        arm: what was there beside it.
        step_ms: median time of a training step.
        ratio: median over the turns of this time over that without slots.
        turns: how many were compared.
    """

    device: str
    host_parameters: int
    arm: str
    step_ms: float
    ratio: Interval
    turns: int


class Residual(nn.Module):
    """Two 3x3 convolutions with BatchNorm around an identity, or a 1x1 convolution."""

    def __init__(self, features: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.around: nn.Module = nn.Identity()
        if stride != 1 or features != width:
            self.around = nn.Conv2d(features, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, features, H, W)`` to ``(B, width, H / stride, W / stride)``."""
        return torch.relu(self.body(x) + self.around(x))


class ResNet(nn.Module):
    """Four stages of two residual blocks on ``(B, 3, H, W)``, ten classes.

    Args:
        width: of the first stage; 64 gives the 11 million parameters of a ResNet-18.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        widths = [width * 2**stage for stage in range(4)]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    Residual(before, after, 1 if before == after else 2), Residual(after, after, 1)
                )
                for before, after in zip([width, *widths], widths, strict=False)
            )
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))

    def forward(self, x: Tensor) -> Tensor:
        """To logits ``(B, 10)``."""
        logits: Tensor = self.head(self.stages(self.stem(x)))
        return logits


def _seeds(incubation: Incubation | None, slots: Sequence[str]) -> Kasmina:
    forever = {"TRAINING": 999, "PROBATIONARY": 999}
    kasmina = Kasmina(
        slots=slots,
        monitor="loss",
        incubation=incubation or Incubation.DIRECT,
        rules=LifecycleRules(min_ages=forever, max_ages=dict.fromkeys(forever, 1000)),
    )
    kasmina.controller = None if incubation is None else plant_everywhere
    return kasmina


ARMS = {
    "8 dormant slots": (None, SLOTS),
    "3 seeds in isolation": (Incubation.STRAIGHT_THROUGH, SEEDED),
    "3 coupled seeds": (Incubation.DIRECT, SEEDED),
}
"""What is compared with the host alone: how seeds are raised, None without any; and the slots."""


def run(
    *, accelerator: str, width: int, size: int, batch_size: int, epochs: int, steps: int
) -> list[Cost]:
    """Train all arms in turns.

    Args:
        accelerator: ``cpu`` or ``cuda``.
        width: of the host's first stage.
        size: height and width of the images.
        batch_size: of a step.
        epochs: that are timed.
        steps: of an epoch.
    """
    # The first epoch warms up, after it seeds are planted.
    length = Length(epochs=epochs + 1, steps=steps + 4, block=4, batch_size=batch_size)
    host = partial(ResNet, width)
    arms = {BARE: Arm(net=host)}
    for name, (incubation, slots) in ARMS.items():
        arms[name] = Arm(net=host, callbacks=partial(_listed, incubation, slots))
    data = examples((3, size, size), length)
    measured = step_times(arms, data, length=length, accelerator=accelerator)
    device = torch.cuda.get_device_name() if accelerator == "cuda" else "CPU, one thread"
    return [
        Cost(
            device=device,
            host_parameters=sum(parameter.numel() for parameter in host().parameters()),
            arm=name,
            step_ms=1e3 * median(times.wall),
            ratio=bootstrap(ratios(times.wall, measured[BARE].wall)),
            turns=len(times.wall),
        )
        for name, times in measured.items()
    ]


def _listed(incubation: Incubation | None, slots: Sequence[str]) -> list[Kasmina]:
    return [_seeds(incubation, slots)]


def render(costs: Sequence[Cost]) -> str:
    """A Markdown table."""
    rows = [
        [
            cost.device,
            f"{cost.host_parameters:,}",
            cost.arm,
            f"{cost.step_ms:.2f}",
            str(cost.ratio),
            str(cost.turns),
        ]
        for cost in costs
    ]
    return table(["device", "host", "arm", "step ms", "ratio [95 %]", "turns"], rows)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    there = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence device")
    parser.add_argument("--accelerator", choices=["cpu", "cuda"], default=there)
    parser.add_argument("--width", type=int, default=64, help="of the host's first stage")
    parser.add_argument("--size", type=int, default=32, help="pixels of the images")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8, help="that are timed")
    parser.add_argument("--steps", type=int, default=40, help="of an epoch")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/device.json"))
    options = parser.parse_args(arguments)
    costs = run(
        accelerator=options.accelerator,
        width=options.width,
        size=options.size,
        batch_size=options.batch_size,
        epochs=options.epochs,
        steps=options.steps,
    )
    write(options.out, " ".join(["device", *arguments]), costs)
    print(render(costs))
