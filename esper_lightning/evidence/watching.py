"""What it costs a run to be seen: ``Nissa`` with everything on, against the same run without.

Both sides grow the same network from the same batches, an epoch in turn, in one process with one
thread, with all that ``train.py`` has beside a network. One of them has metrics, alerts, a webhook
and the dashboard too; during its turns another process scrapes it every second, and a viewer holds
its live stream open. Every step counts as slow, so that alerts fire.

What Nissa does by itself it does during the other side's turns too: how long that is, is measured,
and the ratio is told once more as if it had held up the other side in full.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec
import torch
from lightning.pytorch import Callback
from torch import Tensor

from esper_lightning.callbacks import (
    Governor,
    GrowthFigure,
    Journal,
    Kasmina,
    LoggerEvents,
    Nissa,
    Summary,
    Tamiyo,
)
from esper_lightning.evidence import scraping
from esper_lightning.evidence.epochs_in_turns import SHAPE, EpochClock, images, make_trainer
from esper_lightning.evidence.intervals import Interval, bootstrap, ratios
from esper_lightning.evidence.onlooker import Onlooker
from esper_lightning.evidence.report import table, write
from esper_lightning.evidence.steady_memory import keep_freed_memory
from esper_lightning.evidence.turns import Turns
from esper_lightning.tamiyo import Heuristic
from esper_lightning.tolaria import CNN, Tolaria

ALONE, SEEN = "without Nissa", "Nissa with everything on"

_SLOW_S = 1e-6
"""Seconds that no step keeps to."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        epoch_s: median time of an epoch without Nissa, with its validation.
        step_ratio: time of an epoch's steps with Nissa over that without, side by side.
        epoch_ratio: the same of whole epochs, with validation and boundary.
        cpu_ratio: the same of the time in which the thread that trains had a core.
        worst_ratio: ``epoch_ratio`` as it would be if all that other threads did during the other
            side's turns had held it up.
        beside: of a core, that other threads used during the turns of the run that is seen.
        beside_alone: the same during the turns of the other one.
        epochs: that were compared.
        identical: whether both sides ended with the same weights, bit for bit.
        scrapes: that were answered.
        frames: that the viewer was sent.
        posts: alerts that the webhook was told.
    """

    epoch_s: float
    step_ratio: Interval
    epoch_ratio: Interval
    cpu_ratio: Interval
    worst_ratio: Interval
    beside: float
    beside_alone: float
    epochs: int
    identical: bool
    scrapes: int
    frames: int
    posts: int


def _beside_network() -> list[Callback]:
    return [
        Kasmina(root="host"),
        Governor(),
        Tamiyo(policy=Heuristic()),
        Journal(),
        Summary(),
        GrowthFigure(),
        LoggerEvents(),
    ]


def run(*, epochs: int, examples: int) -> Cost:
    """Train both sides in turns.

    Args:
        epochs: of each side, at least 4; the first and the last are not timed.
        examples: of an epoch.
    """
    keep_freed_memory()
    turns = Turns([ALONE, SEEN])
    weights: dict[str, Mapping[str, Tensor]] = {}
    with tempfile.TemporaryDirectory() as folder, Onlooker() as onlooker:
        nissa = Nissa(port=0, dashboard=0, webhook=onlooker.webhook, step_budget_s=_SLOW_S)

        def look() -> None:
            onlooker.look(f"http://{nissa.address}/metrics", nissa.dashboard_address)

        clocks = {
            ALONE: EpochClock(ALONE, turns),
            SEEN: EpochClock(SEEN, turns, begin=look, end=onlooker.pause),
        }

        def trained(name: str) -> Callable[[], None]:
            def train() -> None:
                torch.set_num_threads(1)  # the setting belongs to the thread
                torch.manual_seed(0)
                host = CNN(input_shape=SHAPE, num_classes=10, width=12)
                model = Tolaria(host=host, num_classes=10)
                model.example_input_array = torch.zeros(2, *SHAPE)  # tells the shapes of slots
                observers = [nissa] if name == SEEN else []
                callbacks = [clocks[name], *_beside_network(), *observers]
                trainer = make_trainer(Path(folder) / name, callbacks, epochs)
                trainer.fit(model, datamodule=images(examples))
                weights[name] = dict(model.state_dict())

            return train

        turns.run({name: trained(name) for name in (ALONE, SEEN)})
        seen = onlooker.end()
    alone, watched = clocks[ALONE].times, clocks[SEEN].times
    held_up = [wall - beside for wall, beside in zip(alone.wall, alone.beside, strict=True)]
    return Cost(
        epoch_s=median(alone.wall),
        step_ratio=bootstrap(ratios(watched.steps, alone.steps)),
        epoch_ratio=bootstrap(ratios(watched.wall, alone.wall)),
        cpu_ratio=bootstrap(ratios(watched.cpu, alone.cpu)),
        worst_ratio=bootstrap(ratios(watched.wall, held_up)),
        beside=sum(watched.beside) / sum(watched.wall),
        beside_alone=sum(alone.beside) / sum(alone.wall),
        epochs=len(alone.wall),
        identical=_same(weights[ALONE], weights[SEEN]),
        scrapes=len(seen.scrape_s),
        frames=seen.frames,
        posts=seen.posts,
    )


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def render(cost: Cost) -> str:
    """A Markdown table."""
    rows = [
        ["time of the steps, ratio [95 %]", str(cost.step_ratio)],
        ["time of epochs", str(cost.epoch_ratio)],
        ["the same at worst", str(cost.worst_ratio)],
        ["CPU time of the thread that trains", str(cost.cpu_ratio)],
        ["epochs compared, one without Nissa", f"{cost.epochs}, {cost.epoch_s:.2f} s"],
        ["cores that other threads used", f"{cost.beside:.3f}"],
        ["the same during the other side's turns", f"{cost.beside_alone:.3f}"],
        ["same weights at the end", "yes" if cost.identical else "NO"],
        ["scrapes, frames, alerts posted", f"{cost.scrapes}, {cost.frames}, {cost.posts}"],
    ]
    return table([SEEN, "measured"], rows)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence watching")
    parser.add_argument("--quick", action="store_true", help="that it works, no more")
    parser.add_argument("--epochs", type=int, default=42, help="of each side")
    parser.add_argument("--examples", type=int, default=6000, help="of an epoch")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/watching.json"))
    options = parser.parse_args(arguments)
    epochs, examples = (4, 640) if options.quick else (options.epochs, options.examples)
    cost = run(epochs=epochs, examples=examples)
    print(render(cost), flush=True)
    scrapes = scraping.run(scraping.QUICK if options.quick else scraping.Size())
    print(f"\n{scraping.render(scrapes)}")
    command = " ".join(["watching", *arguments])
    write(options.out, command, {"everything": cost, "scrape": scrapes})
