"""What slots cost that nothing grows in: a step with them against a step without.

Bare Lightning, the same module with eight dormant slots, and the same with a disabled LoRA adapter
on the same eight modules, trained in turns of a few steps in one process. One thread. Where the
tensors of a fit come to lie makes it faster or slower by a percent or two, so everything is fitted
anew several times, and the fits are what the intervals are taken over.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import torch
from peft import LoraConfig, LoraModel, get_peft_model
from torch import Tensor, nn

from esper_lightning.callbacks import Kasmina
from esper_lightning.evidence.intervals import Interval, bootstrap, ratios
from esper_lightning.evidence.report import table, write
from esper_lightning.evidence.side_by_side import Arm, Length, step_times
from esper_lightning.evidence.steady_memory import keep_freed_memory
from esper_lightning.tolaria.hosts import CNN

BARE, SLOTS, LORA = "bare", "8 dormant slots", "disabled LoRA"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One arm.

    Attributes:
        host: what was trained.
        arm: what it had beside it.
        step_ms: median time of a training step, by the clock on the wall.
        wall_ratio: of this arm's time over the bare one's: the median over the turns of a fit, the
            mean over the fits.
        cpu_ratio: the same of the time in which the thread had a core.
        added_us: the same of the difference of the latter, per step.
        fits: how many were compared.
    """

    host: str
    arm: str
    step_ms: float
    wall_ratio: Interval
    cpu_ratio: Interval
    added_us: Interval
    fits: int


def convolutions(width: int = 16) -> nn.Module:
    """Eight 3x3 convolutions with BatchNorm and ReLU on ``(B, 3, H, W)``, ten classes."""
    layers: list[nn.Module] = []
    for number in range(8):
        features = 3 if number == 0 else width
        layers += [nn.Conv2d(features, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


CONVOLUTIONS = [str(3 * number) for number in range(8)]


def digits_host() -> nn.Module:
    """The host that digits are trained on by default."""
    return CNN(input_shape=(1, 8, 8), num_classes=10)


DIGITS = [f"features.{number}.{part}" for number in range(3) for part in ("conv", "norm")]
DIGITS += ["features.0.act", "features.1.act"]


def disabled_lora(net: nn.Module, paths: Sequence[str]) -> nn.Module:
    """``net`` with adapters on ``paths`` that take no part; the rest trains as before."""
    config = LoraConfig(r=4, target_modules=list(paths))
    adapted = get_peft_model(net, config)
    tuner = adapted.base_model
    assert isinstance(tuner, LoraModel)
    tuner.disable_adapter_layers()
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_("lora_" not in name)
    return adapted


def measure(
    host: str, arms: dict[str, Arm], examples: tuple[Tensor, Tensor], *, length: Length, fits: int
) -> list[Cost]:
    """Train the arms in turns, ``fits`` times; the first is what the others are compared with."""
    bare, names = next(iter(arms)), list(arms)
    wall, cpu, added, steps = ({name: list[float]() for name in names} for _ in range(4))
    for fit in range(fits):
        turned = names[fit % len(names) :] + names[: fit % len(names)]
        measured = step_times({name: arms[name] for name in turned}, examples, length=length)
        base = measured[bare]
        for name, times in measured.items():
            steps[name].append(1e3 * median(times.wall))
            wall[name].append(median(ratios(times.wall, base.wall)))
            cpu[name].append(median(ratios(times.cpu, base.cpu)))
            differences = (a - b for a, b in zip(times.cpu, base.cpu, strict=True))
            added[name].append(1e6 * median(differences))
    return [
        Cost(
            host=host,
            arm=name,
            step_ms=median(steps[name]),
            wall_ratio=bootstrap(wall[name], statistic=np.mean),
            cpu_ratio=bootstrap(cpu[name], statistic=np.mean),
            added_us=bootstrap(added[name], statistic=np.mean),
            fits=fits,
        )
        for name in names
    ]


def examples(shape: Sequence[int], length: Length) -> tuple[Tensor, Tensor]:
    """Random inputs and classes: what they hold does not change how long a step takes."""
    generator = torch.Generator().manual_seed(0)
    count = length.steps * length.batch_size
    inputs = torch.randn(count, *shape, generator=generator)
    return inputs, torch.randint(0, 10, (count,), generator=generator)


def run(*, fits: int, turns: int, size: int) -> list[Cost]:
    """Both hosts.

    Args:
        fits: of every arm.
        turns: of a fit that are timed.
        size: height and width of the images of the larger host.
    """

    def slots(paths: Sequence[str]) -> Kasmina:
        return Kasmina(slots=[f"net.{path}" for path in paths], monitor="loss")

    def lengths(batch_size: int, block: int) -> Length:
        return Length(epochs=2, steps=(turns + 1) * block, block=block, batch_size=batch_size)

    keep_freed_memory()
    large, small = lengths(16, 6), lengths(64, 20)
    return [
        *measure(
            f"8 convolutions, {size}x{size}",
            {
                BARE: Arm(net=convolutions),
                SLOTS: Arm(net=convolutions, callbacks=lambda: [slots(CONVOLUTIONS)]),
                LORA: Arm(net=lambda: disabled_lora(convolutions(), CONVOLUTIONS)),
            },
            examples((3, size, size), large),
            length=large,
            fits=fits,
        ),
        *measure(
            "digits",
            {
                BARE: Arm(net=digits_host),
                SLOTS: Arm(net=digits_host, callbacks=lambda: [slots(DIGITS)]),
            },
            examples((1, 8, 8), small),
            length=small,
            fits=fits,
        ),
    ]


def render(costs: Sequence[Cost]) -> str:
    """A Markdown table."""
    rows = [
        [
            cost.host,
            cost.arm,
            f"{cost.step_ms:.2f}",
            str(cost.wall_ratio),
            str(cost.cpu_ratio),
            f"{cost.added_us.value:+.0f} [{cost.added_us.low:+.0f}, {cost.added_us.high:+.0f}]",
            str(cost.fits),
        ]
        for cost in costs
    ]
    return table(
        ["host", "arm", "step ms", "wall ratio [95 %]", "CPU ratio", "added CPU µs", "fits"], rows
    )


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence overhead")
    parser.add_argument("--fits", type=int, default=18, help="of every arm")
    parser.add_argument("--turns", type=int, default=8, help="of a fit that are timed")
    parser.add_argument("--size", type=int, default=32, help="pixels of the larger host's images")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/overhead.json"))
    options = parser.parse_args(arguments)
    costs = run(fits=options.fits, turns=options.turns, size=options.size)
    write(options.out, " ".join(["overhead", *arguments]), costs)
    print(render(costs))
