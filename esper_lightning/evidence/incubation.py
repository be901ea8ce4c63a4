"""What seeds in isolation cost: straight-through, shadow passes, and the monitor that checks them.

Three seeds are planted after the first epoch and stay in TRAINING. All ways are trained in turns in
one process, on one thread, and compared with the same network without seeds, epoch by epoch.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import torch.nn.functional as F
from torch import Tensor

from esper_lightning.callbacks import Kasmina
from esper_lightning.evidence.intervals import Interval, bootstrap, ratios
from esper_lightning.evidence.overhead import convolutions, examples
from esper_lightning.evidence.report import table, write
from esper_lightning.evidence.side_by_side import Arm, Length, step_times
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import (
    AdaptationCommand,
    CommandKind,
    Decision,
    Incubation,
    SeedStage,
    SystemState,
)

SLOTS = ["net.6", "net.12", "net.18"]
BLUEPRINT = "parallel_conv"
NONE = "no seeds"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One way to raise three seeds.

    Attributes:
        way: in words.
        step_ms: mean time of a training step in which a thread computed, second passes included.
        cpu_ratio: mean over the epochs of this time over that without seeds.
        flops_ratio: training FLOPs of a whole run over those without seeds.
        epochs: how many were compared.
    """

    way: str
    step_ms: float
    cpu_ratio: Interval
    flops_ratio: float
    epochs: int


def _loss(module: Any, batch: list[Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(module.net(x), y)


class _Planting(Kasmina):
    """Mutates the network: Kasmina, with a controller that plants in every slot at once."""

    def __init__(
        self, incubation: Incubation, *, plants: bool, share: float, monitor: bool
    ) -> None:
        super().__init__(
            slots=SLOTS,
            monitor="loss",
            incubation=incubation,
            loss=_loss,
            rules=LifecycleRules(
                shadow_share=share,
                monitor_every=1 if monitor else None,
                min_ages={"TRAINING": 999},
                max_ages={"TRAINING": 1000},
            ),
        )
        if plants:
            self.controller = plant_everywhere


def plant_everywhere(state: SystemState) -> list[Decision]:
    """A controller that plants in every slot at once."""
    return [
        Decision(
            run_id=state.run_id,
            epoch=state.epoch,
            policy="benchmark",
            command=AdaptationCommand(
                id=f"{state.epoch}/{slot.slot}",
                run_id=state.run_id,
                kind=CommandKind.GERMINATE,
                slot=slot.slot,
                blueprint=BLUEPRINT,
            ),
        )
        for slot in state.slots
        if slot.stage is SeedStage.DORMANT
    ]


WAYS: dict[str, dict[str, Any]] = {
    NONE: {"incubation": Incubation.STRAIGHT_THROUGH, "plants": False},
    "straight-through": {"incubation": Incubation.STRAIGHT_THROUGH},
    "straight-through, monitored": {"incubation": Incubation.STRAIGHT_THROUGH, "monitor": True},
    "shadow, half of the batches": {"incubation": Incubation.SHADOW},
    "shadow, every batch": {"incubation": Incubation.SHADOW, "share": 1.0},
}
"""What is compared."""


def run(*, epochs: int, steps: int, size: int) -> list[Cost]:
    """Train all ways in turns.

    Args:
        epochs: that are timed.
        steps: of an epoch.
        size: height and width of the images.
    """
    # The first epoch warms up, after it seeds are planted.
    length = Length(epochs=epochs + 1, steps=steps + 4, block=4, batch_size=16)
    callbacks: dict[str, Kasmina] = {}
    arms: dict[str, Arm] = {}
    for name, way in WAYS.items():
        options = {"plants": True, "share": 0.5, "monitor": False, **way}
        kasmina = callbacks[name] = _Planting(**options)
        arms[name] = Arm(net=convolutions, callbacks=partial(list, [kasmina]))
    measured = step_times(arms, examples((3, size, size), length), length=length)
    by_epoch = {name: epoch_means(times.cpu, epochs) for name, times in measured.items()}
    return [
        Cost(
            way=name,
            step_ms=1e3 * mean(by_epoch[name]),
            cpu_ratio=bootstrap(ratios(by_epoch[name], by_epoch[NONE])),
            flops_ratio=callbacks[name].costs.total / callbacks[NONE].costs.total,
            epochs=epochs,
        )
        for name in WAYS
    ]


def epoch_means(turns: Sequence[float], epochs: int) -> list[float]:
    """The mean of each epoch's turns, of which every epoch has as many.

    >>> epoch_means([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], epochs=2)
    [2.0, 5.0]

    Raises:
        ValueError: the turns cannot be those of so many epochs.
    """
    each, rest = divmod(len(turns), epochs)
    if rest or not each:
        raise ValueError(f"{len(turns)} turns are not those of {epochs} epochs of equal length")
    return [mean(turns[start : start + each]) for start in range(0, len(turns), each)]


def render(costs: Sequence[Cost]) -> str:
    """A Markdown table."""
    rows = [
        [c.way, f"{c.step_ms:.2f}", str(c.cpu_ratio), f"{c.flops_ratio:.3f}", str(c.epochs)]
        for c in costs
    ]
    return table(["three seeds", "CPU ms a step", "CPU ratio [95 %]", "FLOPs", "epochs"], rows)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence incubation")
    parser.add_argument("--epochs", type=int, default=8, help="timed epochs")
    parser.add_argument("--steps", type=int, default=60, help="of an epoch")
    parser.add_argument("--size", type=int, default=8, help="pixels of the images")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/incubation.json"))
    options = parser.parse_args(arguments)
    costs = run(epochs=options.epochs, steps=options.steps, size=options.size)
    write(options.out, " ".join(["incubation", *arguments]), costs)
    print(render(costs))
