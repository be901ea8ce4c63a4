"""What a scrape costs a run of 64 slots with a seed in each, and what Nissa costs it otherwise."""

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from esper_lightning.callbacks import Kasmina, Nissa, Tamiyo
from esper_lightning.evidence.epochs_in_turns import SHAPE, EpochClock, images, make_trainer
from esper_lightning.evidence.intervals import Interval, bootstrap, ratios
from esper_lightning.evidence.onlooker import Onlooker
from esper_lightning.evidence.report import table
from esper_lightning.evidence.steady_memory import keep_freed_memory
from esper_lightning.evidence.turns import Turns
from esper_lightning.leyline import CommandKind, SystemState
from esper_lightning.nissa.alerts import RULES, AlertBook
from esper_lightning.nissa.alerts.watch import EVERY_S
from esper_lightning.nissa.metrics import Series, names
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tolaria import Tolaria

SLOTS = 64

WIDTH = 32
BLUEPRINT = "vector_affine"
LEFT_ALONE, SCRAPED = "not scraped", "scraped every second"


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        epochs: of each side, at least 4; the first and the last are not timed.
        examples: of an epoch.
        rest_s: seconds for which a run at rest is scraped.
        steps: that are timed beside a run.
        looks: at the rules.
    """

    epochs: int = 26
    examples: int = 6_400
    rest_s: float = 30.0
    steps: int = 20_000
    looks: int = 400


QUICK = Size(epochs=4, examples=640, rest_s=2.0, steps=100, looks=10)
"""That it works, no more."""


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """Of something that is done again and again.

    Attributes:
        what: it is.
        p50_us, p95_us: microseconds.
        num: how often.
    """

    what: str
    p50_us: float
    p95_us: float
    num: int


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """Steps of a run that is scraped, against those of the same run that is not.

    Attributes:
        p50_ms, p99_ms: of the time from one step to the next, by side.
        p50_ratio, p99_ratio: of the two, epoch by epoch.
        epochs: that were compared.
        seeds: live ones of the run, at the end of it.
        scrapes: that were answered.
    """

    p50_ms: dict[str, float]
    p99_ms: dict[str, float]
    p50_ratio: Interval
    p99_ratio: Interval
    epochs: int
    seeds: int
    scrapes: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    steps: Steps
    durations: tuple[Duration, ...]


class _Everywhere(Policy):
    """Plants wherever something can be planted."""

    name = "everywhere"

    def decide(self, state: SystemState) -> list[Choice]:
        """One seed for every slot that is free."""
        return [
            Choice(
                kind=CommandKind.GERMINATE,
                slot=slot.slot,
                blueprint=BLUEPRINT,
                reason="a slot that is free",
            )
            for slot in state.slots
            if CommandKind.GERMINATE in slot.legal
        ]


class _StepClock(EpochClock):
    """Observes only: also keeps the time from one step to the next, epoch by epoch."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.epochs: list[list[float]] = []
        self._last = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin another list."""
        super().on_train_epoch_start(trainer, pl_module)
        self.epochs.append([])

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """One step is over, all that belongs to it included."""
        now = time.perf_counter()
        if batch_idx > 0:
            self.epochs[-1].append(now - self._last)
        self._last = now

    def percentiles(self, percentile: float) -> list[float]:
        """Of each epoch that is timed."""
        return [float(np.percentile(steps, percentile)) for steps in self.epochs[1:-1]]

    def percentile_ms(self, percentile: float) -> float:
        """Of all their steps."""
        return 1e3 * float(np.percentile(np.concatenate(self.epochs[1:-1]), percentile))


def _network() -> nn.Module:
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(SLOTS)]
    inputs = SHAPE[0] * SHAPE[1] * SHAPE[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, WIDTH), nn.ReLU(), *layers, nn.Linear(WIDTH, 10)
    )


_FIRST = 3
"""Place of the first slot in :func:`_network`."""


def run(size: Size) -> Figures:
    """Train both sides in turns, then look at what the scraped one left."""
    keep_freed_memory()
    turns = Turns([LEFT_ALONE, SCRAPED])
    nissas = {name: Nissa(port=0) for name in (LEFT_ALONE, SCRAPED)}
    trainers: dict[str, Trainer] = {}
    with tempfile.TemporaryDirectory() as folder, Onlooker() as onlooker:

        def look() -> None:
            onlooker.look(f"http://{nissas[SCRAPED].address}/metrics")

        clocks = {
            LEFT_ALONE: _StepClock(LEFT_ALONE, turns),
            SCRAPED: _StepClock(SCRAPED, turns, begin=look, end=onlooker.pause),
        }

        def trained(name: str) -> Callable[[], None]:
            def train() -> None:
                torch.set_num_threads(1)  # the setting belongs to the thread
                torch.manual_seed(0)
                model = Tolaria(host=_network(), num_classes=10)
                model.example_input_array = torch.zeros(2, *SHAPE)  # tells the shapes of slots
                callbacks = [clocks[name], *_beside_network(), nissas[name]]
                trainers[name] = make_trainer(Path(folder) / name, callbacks, size.epochs)
                trainers[name].fit(model, datamodule=images(size.examples))

            return train

        turns.run({name: trained(name) for name in (LEFT_ALONE, SCRAPED)})
        while_training = onlooker.end().scrape_s
    nissa = nissas[SCRAPED]
    steps = _compared(clocks, _samples(nissa), len(while_training))
    return Figures(
        steps=steps,
        durations=(
            _duration("a scrape of a run at rest", _scrapes(nissa, size.rest_s)),
            _duration("a scrape while it trains", while_training),
            _duration("what Nissa adds to a step", _hooks(nissa, trainers[SCRAPED], size.steps)),
            _duration(f"working out {len(RULES)} rules", _looks(_samples(nissa), size.looks)),
        ),
    )


def _beside_network() -> list[Callback]:
    slots = [str(_FIRST + number) for number in range(SLOTS)]
    return [Kasmina(root="host", slots=slots), Tamiyo(policy=_Everywhere(), risk=False)]


def _compared(clocks: dict[str, _StepClock], samples: dict[Series, float], scrapes: int) -> Steps:
    without, scraped = clocks[LEFT_ALONE], clocks[SCRAPED]
    return Steps(
        p50_ms={name: clock.percentile_ms(50) for name, clock in clocks.items()},
        p99_ms={name: clock.percentile_ms(99) for name, clock in clocks.items()},
        p50_ratio=bootstrap(ratios(scraped.percentiles(50), without.percentiles(50))),
        p99_ratio=bootstrap(ratios(scraped.percentiles(99), without.percentiles(99))),
        epochs=len(scraped.epochs) - 2,
        seeds=sum(series.name == names.SEED_AGE.name for series in samples),
        scrapes=scrapes,
    )


def _samples(nissa: Nissa) -> dict[Series, float]:
    assert nissa.registry is not None
    return nissa.registry.samples()


def _scrapes(nissa: Nissa, seconds: float) -> list[float]:
    """Of the registry that a run left, by another process, ten a second."""
    from esper_lightning.nissa.metrics.serving import (  # pylint: disable=import-outside-toplevel
        MetricsServer,
    )

    assert nissa.registry is not None
    with closing(MetricsServer(nissa.registry, 0)) as server, Onlooker(every_s=0.1) as onlooker:
        onlooker.look(f"http://{server.address}/metrics")
        time.sleep(seconds)
        return onlooker.end().scrape_s


def _hooks(nissa: Nissa, trainer: Trainer, num: int) -> list[float]:
    """Of what it does before a step and after it."""
    took = []
    for _ in range(num):
        began = time.perf_counter()
        nissa.on_train_batch_start(trainer, trainer.lightning_module, None, 1)
        nissa.on_train_batch_end(trainer, trainer.lightning_module, None, None, 1)
        took.append(time.perf_counter() - began)
    return took


def _looks(samples: dict[Series, float], num: int) -> list[float]:
    """Of looks at the samples of a run, once the longest window is full."""
    book, took = AlertBook(), []
    for number in range(2 * num):
        began = time.perf_counter()
        book.observe(samples, at=1e9 + number * EVERY_S)
        took.append(time.perf_counter() - began)
    return took[num:]


def _duration(what: str, seconds: list[float]) -> Duration:
    p50, p95 = 1e6 * np.percentile(seconds, [50, 95])
    return Duration(what=what, p50_us=float(p50), p95_us=float(p95), num=len(seconds))


def render(figures: Figures) -> str:
    """Two Markdown tables."""
    steps = figures.steps
    header = [f"a step of a run of {SLOTS} slots", "p50 ms", "p99 ms"]
    rows = [[name, f"{p50:.2f}", f"{steps.p99_ms[name]:.2f}"] for name, p50 in steps.p50_ms.items()]
    rows.append(["ratio of epochs [95 %]", str(steps.p50_ratio), str(steps.p99_ratio)])
    done = [
        [each.what, f"{each.p50_us:,.1f}", f"{each.p95_us:,.1f}", str(each.num)]
        for each in figures.durations
    ]
    return (
        f"{table(header, rows)}\n\n{steps.epochs} epochs, {steps.seeds} live seeds, "
        f"{steps.scrapes} scrapes.\n\n{table([f'{SLOTS} slots', 'p50 us', 'p95 us', 'num'], done)}"
    )
