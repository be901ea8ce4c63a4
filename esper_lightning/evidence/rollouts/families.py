"""Cheap tasks: digits in many versions, those to learn on and those that are held out.

The two have no host in common, no share of wrong labels and no learning rate.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from esper_lightning.simic.rollouts import RolloutTask

COMMON = (
    "data=digits",
    "schedule=warmup_stable_decay",
    "test=false",
    "print_config=false",
    "logger=none",
    "oona=none",
    "tezzeret=none",
    "~callbacks.live_table",
    "~callbacks.model_summary",
    "~callbacks.growth_figure",
    "~callbacks.logger_events",
    "~callbacks.checkpoint",
    "+trainer.enable_checkpointing=false",
    "+trainer.enable_progress_bar=false",
)
"""Options of every run: it leaves its record and its summary, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What tasks are drawn from, each as likely.

    Attributes:
        name: of the family.
        hosts: options that make one.
        examples: for training.
        noises: shares of wrong labels.
        rates: of learning.
        classes: how many digits are told apart.
        epochs: of a run.
    """

    name: str
    hosts: Sequence[tuple[str, ...]]
    examples: Sequence[int]
    noises: Sequence[float]
    rates: Sequence[float]
    classes: Sequence[int]
    epochs: Sequence[int]

    def task(self, number: int) -> RolloutTask:
        """The task of a number."""
        draw = random.Random(f"{self.name} {number}")
        host = draw.choice(self.hosts)
        digits = sorted(draw.sample(range(10), draw.choice(self.classes)))
        options = (
            *host,
            f"data.subset={draw.choice(self.examples)}",
            f"data.classes={digits}".replace(" ", ""),
            f"data.label_noise={draw.choice(self.noises)}",
            f"optimizer.lr={draw.choice(self.rates)}",
            f"trainer.max_epochs={draw.choice(self.epochs)}",
        )
        short = ",".join(each.partition("=")[2] for each in options)
        return RolloutTask(name=f"{self.name}:{short}", options=(*COMMON, *options))


def _hosts(host: str, widths: Sequence[int], *more: str) -> list[tuple[str, ...]]:
    return [(f"host={host}", f"host.width={width}", *more) for width in widths]


TRAINING = Family(
    name="training",
    hosts=[
        *_hosts("cnn", (3, 4, 6)),
        *_hosts("mlp", (6, 8, 12), "host.depth=2"),
        *_hosts("mlp", (8, 16), "host.depth=3"),
    ],
    examples=(200, 300, 400),
    noises=(0.0, 0.1),
    rates=(0.005, 0.01, 0.02),
    classes=(6, 8, 10),
    epochs=(10, 12, 14, 16),
)
"""To learn on."""

HELD_OUT = Family(
    name="held_out",
    hosts=[
        *_hosts("cnn", (5,)),
        *_hosts("mlp", (10,), "host.depth=2"),
        *_hosts("mlp", (6,), "host.depth=4"),
        *_hosts("resnet", (4,), "host.depth=8"),
    ],
    examples=(250, 350),
    noises=(0.05, 0.2),
    rates=(0.0075, 0.015),
    classes=(7, 9),
    epochs=(11, 15),
)
"""To judge by."""

FIRST_OF_GATE = 10_000
"""Number of the first task to publish by."""


def training_task(number: int) -> RolloutTask:
    """The task of a number to learn on."""
    return TRAINING.task(number)


def held_out_task(number: int) -> RolloutTask:
    """The task of a number to judge by."""
    return HELD_OUT.task(number)


def gate_task(number: int) -> RolloutTask:
    """The task of a number to publish by; drawn as those to judge by, and none of them."""
    return HELD_OUT.task(FIRST_OF_GATE + number)
