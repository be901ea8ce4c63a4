"""Publishes what happens in a run on the message bus."""

import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from msgspec.structs import replace

from esper_lightning.callbacks.found import find
from esper_lightning.leyline import (
    BusUnavailable,
    EsperError,
    Event,
    InvalidArgument,
    RunEnded,
    Services,
    TelemetryPacket,
)
from esper_lightning.oona import (
    OUTBOX_NAME,
    Connection,
    Outbox,
    OutboxFailed,
    Published,
    Publisher,
    Settings,
    connect,
)

log = logging.getLogger(__name__)

CLOSING_S = 2.0
"""Seconds that the end of a run waits for the bus; what is left is in the outbox."""


class Oona(Callback):
    """Observes only: publishes every event of the run, and telemetry, on the message bus.

    Publishing is a put into a queue; nothing that the bus does reaches training. What must not be
    lost waits in an outbox beside the run's other files until the server has it.

    Args:
        url: ``auto`` or None, ``embedded://``, ``memory://``, ``redis://...``; see
            :func:`esper_lightning.oona.connect`. With ``auto`` it is idle where no server can be
            had that others hear, or what the environment names cannot be used.
        folder: of an embedded server and of the outbox; None takes the Trainer's
            ``default_root_dir``.
        every_n_steps: optimiser steps between two packets of telemetry.

    Raises:
        InvalidArgument: ``every_n_steps`` is not positive.
        BusUnavailable: at the start of a fit, the server that ``url`` names cannot be started.
        KeyRequired: likewise, ``url`` names a shared server and there is no key to sign with.
    """

    def __init__(
        self, *, url: str | None = "auto", folder: str | None = None, every_n_steps: int = 50
    ) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise InvalidArgument(f"every_n_steps is at least 1, got {every_n_steps}")
        self.url = url or "auto"
        self.folder = folder
        self.every_n_steps = every_n_steps
        self._published: Published | None = None
        self._connection: Connection | None = None
        self._publisher: Publisher | None = None
        self._run_id = ""
        self._is_new = False
        self._step = 0
        self._since = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the bus, and listen to the run."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        self._close()  # of a fit that failed before it began
        self._run_id = ""
        folder = Path(self.folder or trainer.default_root_dir).expanduser().resolve()
        try:
            settings = Settings.from_environment(self.url)
            self._connection = connect(settings.url, folder=folder)
            if self.url == "auto" and self._connection.kind == "memory":
                raise BusUnavailable("one inside this process would be heard by nobody else")
            signer = self._connection.signer()
        except EsperError as error:
            self._close()
            if self.url != "auto":
                raise
            # What the environment says may be meant for another program.
            told = logging.INFO if isinstance(error, BusUnavailable) else logging.WARNING
            log.log(told, "no bus: %s", error)
            return
        self._publisher = Publisher(
            lambda: connect(settings.url, folder=folder),
            signer,
            settings,
            source=folder.name[:256] or "run",
            outbox=_outbox(folder),
        )
        log.info("the bus is %s", self._connection.address)
        self._is_new = False  # what comes at once is an earlier fit's
        find(trainer).subscribe(self._tell)
        self._is_new = True

    @property
    def published(self) -> Published | None:
        """Figures of the run's publisher as they stand, or as it left them; None without one."""
        return self._publisher.figures() if self._publisher is not None else self._published

    def report_services(self, services: Services) -> Services:
        """``services`` with how the bus stands, where there is one."""
        if self._publisher is None:
            return services
        figures = self._publisher.figures()
        return replace(
            services,
            bus=self._publisher.breaker.state.value,
            waiting=figures.waiting,
            dropped=sum(figures.dropped.values()),
        )

    def _tell(self, event: Event) -> None:
        if self._publisher is None or not self._is_new:
            return
        self._run_id = event.run_id
        self._publisher.publish(event)
        if isinstance(event, RunEnded):
            self._close()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is done between epochs is no part of a step."""
        self._since, self._step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Telemetry, every so many steps."""
        if trainer.global_step - self._step >= self.every_n_steps:
            self._tell_pace(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Telemetry of the epoch's last steps."""
        if trainer.global_step > self._step:
            self._tell_pace(trainer)

    def _tell_pace(self, trainer: Trainer) -> None:
        if self._publisher is None:
            return
        now, step = time.perf_counter(), trainer.global_step
        packet = TelemetryPacket(
            run_id=self._run_id,
            epoch=trainer.current_epoch,
            step=step,
            values={"step_seconds": (now - self._since) / (step - self._step)},
        )
        self._since, self._step = now, step
        self._publisher.publish(packet)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let go of the bus where no run has begun; one that has still tells its end."""
        if not self._run_id:
            self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the bus."""
        if stage == "fit":
            self._close()

    def _close(self) -> None:
        publisher, connection = self._publisher, self._connection
        self._publisher = self._connection = None
        if publisher is not None:
            publisher.close(CLOSING_S)
            self._published = publisher.figures()
            self._tell_end(self._published)
        if connection is not None:
            connection.close()

    def _tell_end(self, published: Published) -> None:
        told = (
            f"the bus: {published.sent} messages sent, {sum(published.dropped.values())} dropped, "
            f"{published.waiting} left in the outbox"
        )
        if published.lost or published.waiting or published.memory:
            log.warning("%s, %d lost", told, published.lost + published.memory)
        else:
            log.info("%s", told)


def _outbox(folder: Path) -> Outbox | None:
    try:
        return Outbox(folder / OUTBOX_NAME)
    except OutboxFailed as error:
        log.warning("%s; what the server cannot take is kept in memory only", error)
        return None
