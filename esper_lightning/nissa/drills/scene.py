"""The frame of a drill: a short real run, watched by the alerts, until it has recovered."""

import contextlib
import logging
import math
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from esper_lightning import karn
from esper_lightning.callbacks import Governor, Journal, Kasmina, Nissa, Summary, Tamiyo
from esper_lightning.kasmina import BuildBranch
from esper_lightning.leyline import EsperError, Event, Incubation, RunEnded
from esper_lightning.leyline.signing import SECRET_VARIABLE
from esper_lightning.nissa.alerts import Alert, AlertBook
from esper_lightning.nissa.drills.timeline import TimeLine, What
from esper_lightning.tamiyo import Policy
from esper_lightning.tolaria import CNN, Digits, Tolaria

SPEED = 100
"""The alerts' clock runs so many times as fast, so that their windows of minutes are seconds."""

LIMIT_S = 45.0
"""A run that has not recovered after so many seconds is ended, and the drill has failed."""

MAX_EPOCHS = 1_000
"""More than any drill needs."""

_LOOK_S = 15.0 / SPEED
_QUIET = ("lightning.pytorch", "lightning.fabric", "esper_lightning")

Seen = Callable[[Event], str]
"""Whether an event is a reaction: what it did, in words, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One failure that can be rehearsed.

    Attributes:
        name: on the command line.
        text: what fails, and what is to be seen.
        alerts: that must be raised, and be over at the end.
        reactions: that must be seen.
        play: lets it happen.
    """

    name: str
    text: str
    alerts: tuple[str, ...]
    reactions: tuple[str, ...]
    play: Callable[["Scene"], None]


class Scene:
    """A drill while it is played.

    Args:
        drill: which.
        folder: for everything that it writes.
        line: takes notes.

    Attributes:
        folder: likewise.
        nissa: watches the run.
    """

    def __init__(self, drill: Drill, folder: Path, line: TimeLine) -> None:
        self.folder = folder
        self.line = line
        self.nissa = Nissa(every_s=_LOOK_S)
        began = time.time()
        self.nissa.book = AlertBook(
            clock=lambda: began + SPEED * (time.time() - began), tell=self._hear
        )
        self._drill = drill
        self._reactions: set[str] = set()
        self._wrong: list[str] = []
        self._outcome = "it never began"
        self._objective = math.nan

    def _hear(self, alert: Alert) -> None:
        # A loaded machine raises others, of latency, that the drill is not about.
        if alert.name in self._drill.alerts:
            self.line.hear(alert)

    # -- told by the drill ------------------------------------------------------------------------

    def fail(self, text: str) -> None:
        """The failure is brought about now."""
        self.line.tell(What.FAILURE, text)

    def react(self, reaction: str, text: str) -> None:
        """A reaction was seen; the first one of its kind is told."""
        assert reaction in self._drill.reactions, reaction
        if reaction not in self._reactions:
            self._reactions.add(reaction)
            self.line.tell(What.REACTION, f"{reaction}: {text}")

    def wrong(self, text: str) -> None:
        """Something happened that must not."""
        self._wrong.append(text)

    @property
    def fired(self) -> bool:
        """Whether every alert of the drill was raised."""
        return self.line.fired.issuperset(self._drill.alerts)

    @property
    def recovered(self) -> bool:
        """Whether every reaction was seen and every alert is over."""
        return self._reactions.issuperset(self._drill.reactions) and self.line.are_over(
            self._drill.alerts
        )

    def missing(self) -> list[str]:
        """What is wrong at the end; nothing where the drill has passed."""
        firing = [
            f"the alert {alert} {'is not over' if alert in self.line.fired else 'was never raised'}"
            for alert in self._drill.alerts
            if not self.line.are_over((alert,))
        ]
        unseen = [
            f"there was no reaction: {each}"
            for each in self._drill.reactions
            if each not in self._reactions
        ]
        ended = (
            [] if self._outcome == "finished" else [f"the run did not end well: {self._outcome}"]
        )
        if not ended and not math.isfinite(self._objective):
            ended = ["the network is no good: its validation loss is not finite"]
        return [*firing, *unseen, *self._wrong, *ended]

    # -- the run ----------------------------------------------------------------------------------

    def fit(
        self,
        policy: Policy,
        *,
        incubation: Incubation = Incubation.DIRECT,
        build: BuildBranch = karn.build,
        seen: Mapping[str, Seen] | None = None,
        at_epoch: Callable[[int], None] | None = None,
        callbacks: Sequence[Callback] = (),
        ckpt_path: Path | None = None,
        **options: Any,
    ) -> None:
        """Train until the run has recovered, or for :data:`LIMIT_S` seconds.

        Args:
            policy: decides.
            incubation: of seeds.
            build: makes branches.
            seen: tells reactions among the events of the run, by name.
            at_epoch: called with the number of each epoch when it begins.
            callbacks: more of them.
            ckpt_path: a checkpoint to go on from.
            **options: of the Trainer.

        Raises:
            Exception: whatever the run raises.
        """
        seed_everything(0, verbose=False)
        data = Digits(seed=0, subset=320, batch_size=32)
        host = CNN(input_shape=data.input_shape, num_classes=data.num_classes, width=4)
        module = Tolaria(host=host, num_classes=data.num_classes, build=build)
        module.example_input_array = data.example_input()
        kasmina = Kasmina(incubation=incubation, build=build)
        watch = _Watch(self, at_epoch, seen or {})
        folder = str(self.folder)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=MAX_EPOCHS,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[
                Governor(),
                Tamiyo(policy=policy),
                kasmina,
                Journal(folder),
                Summary(folder),
                self.nissa,
                watch,
                *callbacks,
            ],
            **{"enable_checkpointing": False, **options},
        )
        kasmina.subscribe(watch.hear)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=False)

    def ended(self, outcome: str) -> None:
        """A run of the drill has ended."""
        self._outcome = outcome
        self.line.tell(What.RUN, f"the run ended: {outcome}")

    def reached(self, objective: float) -> None:
        """The validation loss after an epoch."""
        self._objective = objective


class _Watch(Callback):
    """Observes only: tells a scene how its run goes, and ends it when it has recovered."""

    def __init__(
        self, scene: Scene, at_epoch: Callable[[int], None] | None, seen: Mapping[str, Seen]
    ) -> None:
        self._scene = scene
        self._at_epoch = at_epoch
        self._seen = seen

    def hear(self, event: Event) -> None:
        """An event of the run."""
        for reaction, seen in self._seen.items():
            text = seen(event)
            if text:
                self._scene.react(reaction, text)
        if isinstance(event, RunEnded):
            self._scene.ended(event.outcome)

    def on_train_epoch_start(self, trainer: Trainer, *_: LightningModule) -> None:
        """Let the failure come, or go."""
        if self._at_epoch is not None:
            self._at_epoch(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, *_: LightningModule) -> None:
        """End the run in good time."""
        self._scene.reached(float(trainer.callback_metrics["val/loss"]))
        if self._scene.recovered or self._scene.line.elapsed_s > LIMIT_S:
            trainer.should_stop = True


def play(drill: Drill, show: Callable[[str], object] = print) -> list[str]:
    """Play a drill in a temporary folder.

    Args:
        drill: which.
        show: called with every line of what happens.

    Returns:
        What is wrong; nothing where it has passed.
    """
    show(f"{drill.name}: {drill.text} The alerts' clock runs {SPEED} times as fast.")
    with TemporaryDirectory(prefix="drill-") as folder, _quiet(), _one_thread(), _own_key():
        scene = Scene(drill, Path(folder), TimeLine(show))
        try:
            drill.play(scene)
        except (EsperError, OSError, RuntimeError) as error:
            scene.wrong(f"it broke off: {type(error).__name__}: {error}")
        wrong = scene.missing()
    for each in wrong:
        show(f"    {each}")
    show(f"{'FAIL' if wrong else 'PASS'} {drill.name}")
    return wrong


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Only the time line is shown."""
    levels = {name: logging.getLogger(name).level for name in _QUIET}
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """So small a network is fastest with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _own_key() -> Iterator[None]:
    """A key of the drill's own signs what it writes, not that of the installation."""
    before = os.environ.get(SECRET_VARIABLE)
    os.environ[SECRET_VARIABLE] = secrets.token_hex(32)
    try:
        yield
    finally:
        if before is None:
            del os.environ[SECRET_VARIABLE]
        else:
            os.environ[SECRET_VARIABLE] = before
