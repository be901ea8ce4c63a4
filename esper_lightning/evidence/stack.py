"""What everything costs that train.py has beside a network, against bare Lightning.

Both sides train the same final network, module, data, logger and checkpoints, an epoch in turn, in
one process with one thread. One of them has the branches as plain modules and nothing else. The
other has them as fossils in slots, and beside them a controller that looks for something to plant
at every boundary and finds no room, the governor with its snapshots, and all that observes.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import torch
from lightning.pytorch import Callback
from lightning.pytorch.profilers import SimpleProfiler
from torch import Tensor, nn

from esper_lightning.callbacks import (
    Governor,
    GrowthFigure,
    Journal,
    Kasmina,
    LoggerEvents,
    Summary,
    Tamiyo,
)
from esper_lightning.evidence.epochs_in_turns import SHAPE, EpochClock, images, make_trainer
from esper_lightning.evidence.intervals import Interval, bootstrap, ratios
from esper_lightning.evidence.planting import Spread
from esper_lightning.evidence.report import table, write
from esper_lightning.evidence.steady_memory import keep_freed_memory
from esper_lightning.evidence.turns import Turns
from esper_lightning.karn import CATALOGUE
from esper_lightning.leyline import FeatureKind, FeatureMap, GrownSeed, SlotShape
from esper_lightning.tamiyo import GrowthBudget, Heuristic
from esper_lightning.tolaria import CNN, Tolaria

BARE, WHOLE = "bare Lightning", "whole stack"
WIDTH = 8
BLUEPRINT, PARAMETERS = "parallel_conv", {"expansion": 6.0}
SLOTS: Mapping[str, tuple[int, int]] = {"features.2": (WIDTH, 14), "features.4": (2 * WIDTH, 7)}
"""Channels and resolution of what passes through each."""

BOUNDARY = ("on_train_epoch_start", "on_validation_end", "on_train_epoch_end")
"""Hooks in which the stack works between two epochs."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        parameters: of the network on either side.
        epoch_s: median time of an epoch of the bare side, with its validation.
        wall_ratio: time of an epoch with the whole stack over that without, side by side.
        cpu_ratio: the same of the time in which the thread had a core.
        boundary: of the hooks of the whole stack between two epochs, checkpoints not among them.
        epochs: that were compared.
    """

    parameters: int
    epoch_s: float
    wall_ratio: Interval
    cpu_ratio: Interval
    boundary: Spread
    epochs: int


class _Beside(nn.Module):
    """A module and a branch from its input to its output."""

    def __init__(self, base: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.base, self.branch = base, branch

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        out: Tensor = self.base(x) + self.branch(x)
        return out


class _Durations(SimpleProfiler):
    """Keeps what it measures to itself."""

    def summary(self) -> str:
        """Nothing to print."""
        return ""


def _host() -> CNN:
    return CNN(input_shape=SHAPE, num_classes=10, width=WIDTH, inner_ratio=0.25)


def _module(network: nn.Module) -> Tolaria:
    model = Tolaria(host=network, num_classes=10)
    model.example_input_array = torch.zeros(2, *SHAPE)  # tells the shapes of slots
    return model


def _bare_network() -> nn.Module:
    network = _host()
    for path, (channels, size) in SLOTS.items():
        feature_map = FeatureMap(FeatureKind.SPATIAL, (channels, size, size))
        branch = CATALOGUE[BLUEPRINT].build(SlotShape(feature_map, feature_map), PARAMETERS)
        network.set_submodule(path, _Beside(network.get_submodule(path), branch))
    return network


def _stack() -> list[Callback]:
    fossils = [
        GrownSeed(slot=path, blueprint=BLUEPRINT, parameters=dict(PARAMETERS)) for path in SLOTS
    ]
    policy = Heuristic(budget=GrowthBudget(max_growth=0.0))
    return [
        Kasmina(root="host", slots=list(SLOTS), fossils=fossils),
        Governor(),
        Tamiyo(policy=policy),
        Journal(),
        Summary(),
        GrowthFigure(),
        LoggerEvents(),
    ]


def run(*, epochs: int, examples: int) -> Cost:
    """Train both sides in turns, then the whole stack once more under a profiler.

    Args:
        epochs: of each side; the first and the last are not timed.
        examples: of an epoch.
    """
    keep_freed_memory()
    turns = Turns([BARE, WHOLE])
    clocks = {name: EpochClock(name, turns) for name in (BARE, WHOLE)}
    sizes: list[int] = []
    with tempfile.TemporaryDirectory() as folder:

        def trained(name: str, network: Callable[[], nn.Module]) -> Callable[[], None]:
            def train() -> None:
                torch.set_num_threads(1)  # the setting belongs to the thread
                torch.manual_seed(0)
                model = _module(network())
                callbacks = [clocks[name], *(_stack() if name == WHOLE else [])]
                trainer = make_trainer(Path(folder) / name, callbacks, epochs)
                trainer.fit(model, datamodule=images(examples))
                sizes.append(sum(parameter.numel() for parameter in model.parameters()))

            return train

        turns.run({BARE: trained(BARE, _bare_network), WHOLE: trained(WHOLE, _host)})
        boundaries = _boundaries(Path(folder) / "profiled", epochs=epochs)
    bare, whole = clocks[BARE], clocks[WHOLE]
    return Cost(
        parameters=max(sizes),
        epoch_s=median(bare.times.wall),
        wall_ratio=bootstrap(ratios(whole.times.wall, bare.times.wall), statistic=np.median),
        cpu_ratio=bootstrap(ratios(whole.times.cpu, bare.times.cpu), statistic=np.median),
        boundary=Spread.of(boundaries),
        epochs=len(bare.times.wall),
    )


def _boundaries(folder: Path, *, epochs: int) -> list[float]:
    """Seconds that the stack's hooks take between two epochs; the epochs themselves are short."""
    profiler = _Durations()
    torch.manual_seed(0)
    stack = _stack()
    trainer = make_trainer(folder, stack, 2 * epochs, profiler=profiler)
    trainer.fit(_module(_host()), datamodule=images(640))
    spent = np.zeros(2 * epochs)
    for callback in stack:
        for hook in BOUNDARY:
            name = f"[Callback]{type(callback).__qualname__}"
            for action, seconds in profiler.recorded_durations.items():
                if action.startswith(name) and action.endswith(f".{hook}"):
                    spent += np.asarray(seconds)[: len(spent)]
    return [float(seconds) for seconds in spent[1:-1]]


def render(cost: Cost) -> str:
    """A Markdown table."""
    header = ["parameters", "epoch s", "wall ratio [95 %]", "CPU ratio", "boundary ms", "epochs"]
    row = [
        f"{cost.parameters:,}",
        f"{cost.epoch_s:.2f}",
        str(cost.wall_ratio),
        str(cost.cpu_ratio),
        str(cost.boundary),
        str(cost.epochs),
    ]
    return f"{table(header, [row])}\n\nBoundary: p50 / p95 (number measured)."


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m esper_lightning.evidence stack")
    parser.add_argument("--epochs", type=int, default=24, help="of each side")
    parser.add_argument("--examples", type=int, default=6000, help="of an epoch")
    parser.add_argument("--out", type=Path, default=Path("outputs/evidence/stack.json"))
    options = parser.parse_args(arguments)
    cost = run(epochs=options.epochs, examples=options.examples)
    write(options.out, " ".join(["stack", *arguments]), cost)
    print(render(cost))
