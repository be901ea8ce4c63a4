"""What a run pays for the bus, and what is left of its messages, while the server misbehaves.

Runs on digits with what runs have by default beside them, in turn without and with the callback
``Oona``. They train the same network on the same batches, so each epoch is compared with its twin.
A fault begins with the second epoch and ends with the last one; the epochs between are timed. What
then waits in the outbox is delivered by another publisher, as ``python -m esper_lightning.oona
deliver`` does.
"""

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from esper_lightning.callbacks import (
    Governor,
    GrowthFigure,
    Journal,
    Kasmina,
    LoggerEvents,
    Oona,
    Summary,
    Tamiyo,
    find,
)
from esper_lightning.evidence.bus.servers import KEY, Server, SlowProxy
from esper_lightning.evidence.intervals import Interval, bootstrap, ratios
from esper_lightning.evidence.report import table
from esper_lightning.evidence.steady_memory import keep_freed_memory
from esper_lightning.leyline import Event, pack
from esper_lightning.leyline.signing import SECRET_VARIABLE
from esper_lightning.oona import KINDS, OUTBOX_NAME, ROUTES
from esper_lightning.tamiyo import Heuristic
from esper_lightning.tolaria import CNN, Digits, Tolaria

NO_FAULT, HUNG, DEAD, FULL, SLOW = (
    "up",
    "hung (SIGSTOP)",
    "killed, restarted",
    "full (maxmemory)",
    "200 ms slow",
)

_DELAY_S = 0.2
_FLUSH_S = 60.0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Runs with the bus, against as many without.

    Attributes:
        server: which.
        state: of it, from the second to the last but one epoch.
        epoch_ms: median time of an epoch without the bus, with validation and boundary.
        step_ratio: of the time of an epoch's training steps with the bus over that of its twin
            without: the median over the epochs of a run, the median over the pairs. One pair has
            no interval.
        epoch_ratio: the same of whole epochs.
        cpu_ratio: the same of the time of whole epochs in which the training thread had a core.
        pairs: how many.
        identical: pairs that ended with the same weights, bit for bit.
        kept: messages that the runs published and that must not be lost.
        lost: of these, how many are not on the server after it has recovered.
        again: entries on the server that hold one of them once more.
        delivered_late: messages that were left in an outbox when a run ended.
    """

    server: str
    state: str
    epoch_ms: float
    step_ratio: Interval
    epoch_ratio: Interval
    cpu_ratio: Interval
    pairs: int
    identical: int
    kept: int
    lost: int
    again: int
    delivered_late: int


class _Times(NamedTuple):
    """Seconds, one figure for each epoch that is timed."""

    steps: list[float]
    epoch: list[float]
    cpu: list[float]


class _Watch(Callback):
    """Observes only: times epochs, keeps the run's events, begins a fault and ends it."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self.times = _Times([], [], [])
        self.events: list[Event] = []
        self._begin, self._end = begin, end
        self._since = (0.0, 0.0)
        self._steps_s = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Hear what the bus hears."""
        find(trainer).subscribe(self.events.append)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """From here to here: steps, validation and boundary."""
        now = time.perf_counter(), time.thread_time()
        if trainer.current_epoch > 1:
            self.times.steps.append(self._steps_s)
            self.times.epoch.append(now[0] - self._since[0])
            self.times.cpu.append(now[1] - self._since[1])
        if trainer.current_epoch == 1:
            self._begin()
        elif trainer.current_epoch + 1 == trainer.max_epochs:
            self._end()
        self._since = time.perf_counter(), time.thread_time()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """The end of the steps."""
        self._steps_s = time.perf_counter() - self._since[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What one run left."""

    times: _Times
    events: list[Event]
    weights: dict[str, torch.Tensor]


def _nothing() -> None:
    pass


def train(
    folder: Path,
    *,
    epochs: int,
    examples: int | None,
    url: str | None,
    begin: Callable[[], None] = _nothing,
    end: Callable[[], None] = _nothing,
) -> _Run:
    """Train on digits, with the bus at ``url`` if there is one.

    Args:
        folder: for what the run writes.
        epochs: of it.
        examples: of an epoch; None takes all.
        url: of the bus.
        begin: called when the second epoch begins.
        end: called when the last one begins.
    """
    seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    data = Digits(subset=examples)
    host = CNN(input_shape=data.input_shape, num_classes=data.num_classes)
    model = Tolaria(host=host, num_classes=data.num_classes)
    model.example_input_array = data.example_input()
    watch = _Watch(begin, end)
    callbacks = [
        Kasmina(root="host"),
        Governor(),
        Tamiyo(policy=Heuristic()),
        Journal(),
        Summary(),
        GrowthFigure(),
        LoggerEvents(),
        ModelCheckpoint(dirpath=folder / "checkpoints", enable_version_counter=False),
    ]
    if url is not None:
        callbacks.append(Oona(url=url))
    Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        default_root_dir=folder,
        logger=CSVLogger(folder),
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch, *callbacks],
    ).fit(model, datamodule=data)
    return _Run(times=watch.times, events=watch.events, weights=dict(model.state_dict()))


@contextlib.contextmanager
def key_in_environment() -> Iterator[None]:
    """What is shared needs a key that is told."""
    before = os.environ.get(SECRET_VARIABLE)
    os.environ[SECRET_VARIABLE] = KEY.decode()
    try:
        yield
    finally:
        if before is None:
            del os.environ[SECRET_VARIABLE]
        else:
            os.environ[SECRET_VARIABLE] = before


def faults(
    server: Server, proxy: SlowProxy
) -> Mapping[str, tuple[Callable[[], None], Callable[[], None]]]:
    """How each begins and how it ends."""

    def delay(seconds: float) -> None:
        proxy.delay_s = seconds

    return {
        NO_FAULT: (_nothing, _nothing),
        HUNG: (server.pause, server.resume),
        DEAD: (server.kill, server.restart),
        FULL: (lambda: server.limit(1), lambda: server.limit(0)),
        SLOW: (lambda: delay(_DELAY_S), lambda: delay(0.0)),
    }


def measure(server: Server, *, pairs: int, epochs: int, examples: int | None) -> list[Cost]:
    """Every fault, ``pairs`` times.

    Args:
        server: emptied before every run.
        pairs: of runs, for each fault.
        epochs: of a run, at least 4; two are not timed.
        examples: of an epoch; None takes all.
    """
    keep_freed_memory()
    with key_in_environment(), closing(SlowProxy(server.socket)) as proxy:
        return [
            _cost(
                server,
                state,
                proxy.url if state == SLOW else server.url,
                (begin, end),
                pairs=pairs,
                epochs=epochs,
                examples=examples,
            )
            for state, (begin, end) in faults(server, proxy).items()
        ]


def _cost(
    server: Server,
    state: str,
    url: str,
    fault: tuple[Callable[[], None], Callable[[], None]],
    *,
    pairs: int,
    epochs: int,
    examples: int | None,
) -> Cost:
    compared: dict[str, list[float]] = {name: [] for name in _Times._fields}
    epoch_ms = []
    identical = kept = lost = again = late = 0
    for number in range(pairs):
        server.empty()
        with TemporaryDirectory() as bare_folder, TemporaryDirectory() as folder:

            def bare(folder: str = bare_folder) -> _Run:
                return train(Path(folder), epochs=epochs, examples=examples, url=None)

            def told(folder: str = folder) -> _Run:
                return train(
                    Path(folder),
                    epochs=epochs,
                    examples=examples,
                    url=url,
                    begin=fault[0],
                    end=fault[1],
                )

            if number % 2 == 0:
                without, with_bus = bare(), told()
            else:
                with_bus, without = told(), bare()
            late += _deliver(server, Path(folder))
        for each, a, b in zip(compared.values(), with_bus.times, without.times, strict=True):
            each.append(median(ratios(a, b)))
        epoch_ms.append(1e3 * median(without.times.epoch))
        identical += _same(with_bus.weights, without.weights)
        published = Counter(
            pack(event) for event in with_bus.events if ROUTES[KINDS[type(event)]].is_kept
        )
        found, doubles = server.kept()
        kept += published.total()
        lost += (published - found).total()
        again += doubles
    return Cost(
        server=server.name,
        state=state,
        epoch_ms=median(epoch_ms),
        step_ratio=_interval(compared["steps"]),
        epoch_ratio=_interval(compared["epoch"]),
        cpu_ratio=_interval(compared["cpu"]),
        pairs=pairs,
        identical=identical,
        kept=kept,
        lost=lost,
        again=again,
        delivered_late=late,
    )


def _interval(values: list[float]) -> Interval:
    if len(values) > 1:
        return bootstrap(values)
    return Interval(value=values[0], low=math.nan, high=math.nan)


def _deliver(server: Server, folder: Path) -> int:
    """Send what a run left in its outbox; how many that was."""
    path = folder / OUTBOX_NAME
    if not path.exists():
        return 0
    with closing(server.publisher(outbox=path)) as publisher:
        left = publisher.figures().waiting
        assert publisher.flush(_FLUSH_S)
    return left


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def render(found: list[Cost]) -> str:
    """A Markdown table."""
    header = ["server", "it is", "epoch ms", "steps, ratio [95 %]", "epoch, ratio", "CPU, ratio"]
    rows = []
    for each in found:
        cells = [each.server, each.state, f"{each.epoch_ms:.0f}"]
        cells += [str(each.step_ratio), str(each.epoch_ratio), str(each.cpu_ratio)]
        counts = (each.pairs, each.identical, each.kept, each.lost, each.again, each.delivered_late)
        rows.append([*cells, *map(str, counts)])
    counted = ["pairs", "identical", "kept messages", "lost", "twice there", "after the run"]
    return table([*header, *counted], rows)
