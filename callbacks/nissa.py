"""Tells how a run is: metrics, and the alerts that they raise."""

import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.oona import Oona
from esper_lightning.callbacks.requirements import callbacks_of
from esper_lightning.callbacks.tamiyo import Tamiyo
from esper_lightning.callbacks.telemetry import Beside
from esper_lightning.callbacks.tezzeret import Tezzeret
from esper_lightning.leyline import Event, InvalidArgument, RunEnded, Services
from esper_lightning.leyline.arguments import check_flag, check_number, check_whole
from esper_lightning.nissa.alerts import Alert, AlertBook, AlertState
from esper_lightning.nissa.alerts.watch import EVERY_S, AlertWatch, log_alert
from esper_lightning.nissa.alerts.webhook import Webhook
from esper_lightning.nissa.metrics import NissaIngestor, names
from esper_lightning.tamiyo import Remote

if TYPE_CHECKING:
    from esper_lightning.nissa.metrics.registry import MetricsRegistry
    from esper_lightning.nissa.metrics.serving import MetricsServer
    from esper_lightning.nissa.server.beside import MissionControl

log = logging.getLogger(__name__)

CALIBRATION = 20
"""Steps from which a run's own step budget is taken."""

SLACK = 3.0
"""Times their median that a step may take."""


MAX_PORT = 65_535
"""The highest port that there is."""


class Nissa(Callback):
    """Observes only: keeps the metrics of a run, and raises alerts.

    Every process has metrics of its own, with its ``rank``; what records tell stands in those of
    the first. Durations are those that Python sees: on a GPU a step is over when it was
    handed over. Alerts are worked out beside training, by the first process, from its own metrics.

    Args:
        port: serves ``/metrics`` there while a fit lasts; 0 takes a free one, None serves nothing.
            Other processes of the machine take the ports that follow.
        host: address that it is served on.
        step_budget_s: seconds above which a step is slow; None takes three times the median of the
            fit's first 20 steps, at least 18 ms, and lets it grow as the network's FLOPs do.
        alerts: whether to raise alerts.
        every_s: seconds between two looks at the alert rules.
        webhook: address that alerts are posted to; None for none.
        dashboard: serves mission control there, on ``host``, while a fit lasts; 0 takes a free
            port, None serves none. Needs the extra ``server``.

    Attributes:
        registry: the metrics; None before the first fit.
        book: the alerts; None where none are raised.
        address: host and port that metrics are served on, or empty.
        dashboard_address: of mission control, or empty.

    Raises:
        InvalidArgument: an argument that is not allowed.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        step_budget_s: float | None = None,
        alerts: bool = True,
        every_s: float = EVERY_S,
        webhook: str | None = None,
        dashboard: int | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("port", port), ("dashboard", dashboard)):
            check_whole(name, number, least=0, or_none=True)
            if number is not None and number > MAX_PORT:
                raise InvalidArgument(f"{name} is at most {MAX_PORT}, got {number}")
        check_number("step_budget_s", step_budget_s, or_none=True)
        check_number("every_s", every_s)
        check_flag("alerts", alerts)
        if (step_budget_s is not None and not step_budget_s > 0) or not every_s > 0:
            raise InvalidArgument(
                f"step_budget_s and every_s are more than 0 seconds, got {step_budget_s} and "
                f"{every_s}"
            )
        self.port, self.host, self.dashboard = port, host, dashboard
        self.step_budget_s = step_budget_s
        self.alerts = alerts
        self.every_s = every_s
        self.webhook = Webhook(webhook) if webhook else None
        self.registry: MetricsRegistry | None = None
        self.book: AlertBook | None = None
        self.address = self.dashboard_address = ""
        self._ingestor: NissaIngestor | None = None
        self._server: MetricsServer | None = None
        self._watch: AlertWatch | None = None
        self._mission: MissionControl | None = None
        self._leave: Callable[[], None] | None = None
        self._steps = _StepTimes(None, None)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to the run."""
        if stage != "fit":
            return
        # Here, since a run without this callback need not wait for prometheus_client.
        from esper_lightning.nissa.metrics.registry import (  # pylint: disable=import-outside-toplevel
            MetricsRegistry,
        )

        if self.registry is None:
            self.registry = MetricsRegistry(rank=trainer.global_rank)
            self._ingestor = NissaIngestor(self.registry)
        if trainer.is_global_zero:
            find(trainer).subscribe(self._hear)
            if self.alerts and self.book is None:
                self.book = AlertBook(tell=self._tell)
            self._serve_dashboard(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to time steps; serve and watch."""
        assert self.registry is not None
        self.registry.name_run(find(trainer).run_id)
        self.registry.gauge(names.RUN_ACTIVE).set(1)
        self._steps = _StepTimes(self.registry, self.step_budget_s)
        self._serve(trainer)
        if self.book is not None and self._watch is None:
            self._watch = AlertWatch(
                self.book, self.registry.samples, every_s=self.every_s, webhook=self.webhook
            )

    # -- in the step ------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._steps.begin(is_first=batch_idx == 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock."""
        self._steps.end()

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count."""
        self._steps.count_batch()

    # -- at the boundary --------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what the parts beside training report, now that the boundary is over."""
        self._report(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell it a last time."""
        self._report(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop where nothing is told any more; a run that has begun still tells its end."""
        is_told = self.registry is not None and self.registry.run
        if not (is_told and trainer.is_global_zero):
            self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop."""
        if stage == "fit":
            self._close()

    # -- inside -----------------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        assert self._ingestor is not None
        self._ingestor.take(event)
        if isinstance(event, RunEnded):
            self._close()

    def _tell(self, alert: Alert) -> None:
        log_alert(alert)
        assert self.book is not None
        assert self.registry is not None
        states = [each.state for each in self.book.alerts()]
        for state in (AlertState.FIRING, AlertState.ACKNOWLEDGED):
            self.registry.gauge(names.ALERTS, state.value).set(states.count(state))
        if self.webhook is not None:
            self.webhook.tell(alert)

    def _report(self, trainer: Trainer) -> None:
        costs = find(trainer).costs
        if costs.per_sample and costs.host_per_sample:
            self._steps.growth = max(1.0, costs.per_sample / costs.host_per_sample)
        if self._ingestor is None or not trainer.is_global_zero:
            return
        services = Services()
        for callback in callbacks_of(trainer):
            if isinstance(callback, Beside):
                services = callback.report_services(services)
            if isinstance(callback, Oona) and callback.published is not None:
                self._ingestor.take_published(callback.published.put)
            if isinstance(callback, Tamiyo) and isinstance(callback.policy, Remote):
                self._ingestor.take_unanswered(callback.policy.num_unanswered)
            if isinstance(callback, Tezzeret):
                tally = callback.tally
                self._ingestor.take_compilations(
                    {
                        "compiled": tally.compiled,
                        "eager": tally.eager,
                        "unknown": tally.unknown,
                    },
                    retries=tally.retries,
                    fallbacks=tally.fallbacks,
                    seconds=tally.compile_s,
                )
        self._ingestor.take_services(services)

    def _serve(self, trainer: Trainer) -> None:
        if self.port is None or self._server is not None or self.registry is None:
            return
        from esper_lightning.nissa.metrics.serving import (  # pylint: disable=import-outside-toplevel
            MetricsServer,
        )

        port = self.port + trainer.local_rank if self.port else 0
        try:
            self._server = MetricsServer(self.registry, port, host=self.host)
        except (OSError, OverflowError) as error:  # taken, forbidden, or beyond the last one
            log.warning("metrics are not served on %s:%d: %s", self.host, port, error)
            return
        self.address = self._server.address
        log.info("metrics are on http://%s/metrics", self.address)

    def _serve_dashboard(self, trainer: Trainer) -> None:
        if self.dashboard is None or self._mission is not None or self.registry is None:
            return
        try:
            from esper_lightning.nissa.server.beside import (  # pylint: disable=import-outside-toplevel
                MissionControl,
            )
        except ModuleNotFoundError as error:
            raise InvalidArgument(
                f"nissa.dashboard needs what is not installed ({error}): "
                f"pip install 'esper-lightning[server]'"
            ) from error
        try:
            self._mission = MissionControl(
                folder=Path(trainer.default_root_dir) / ".nissa",
                host=self.host,
                port=self.dashboard,
                alerts=self.book,
                exposition=self.registry.exposition,
            )
        except OSError as error:
            log.warning("no dashboard on %s:%d: %s", self.host, self.dashboard, error)
            return
        self._leave = find(trainer).subscribe(self._mission.tell)
        self.dashboard_address = self._mission.address
        log.info("the dashboard is on %s", self.dashboard_address)

    def _close(self) -> None:
        if self.registry is not None and self.registry.run:
            self.registry.gauge(names.RUN_ACTIVE).set(0)
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._mission is not None:
            if self._leave is not None:
                self._leave()
            self._mission.close()
            self._mission = None


class _StepTimes:
    """Times steps and the boundaries between them, and tells which steps were slow.

    Args:
        registry: where it is told; None times nothing.
        budget_s: seconds above which a step is slow; None takes it from the first steps.
    """

    def __init__(self, registry: "MetricsRegistry | None", budget_s: float | None) -> None:
        self.growth = 1.0
        self._is_on = registry is not None
        self._own = budget_s
        self._base = 0.0
        self._first: list[float] = []
        self._began: float | None = None
        self._ended: float | None = None
        if registry is not None:
            self._durations = registry.histogram(names.STEP_DURATION)
            self._boundaries = registry.histogram(names.BOUNDARY_DURATION)
            self._count = registry.counter(names.STEPS)
            self._slow = registry.counter(names.SLOW_STEPS)
            self._batches = registry.counter(names.BATCHES)
            self._budget = registry.gauge(names.STEP_BUDGET)
            if budget_s is not None:
                self._budget.set(budget_s)

    def begin(self, *, is_first: bool) -> None:
        """A step begins; the first one of an epoch ends a boundary."""
        self._began = time.perf_counter()
        if self._is_on and is_first and self._ended is not None:
            self._boundaries.observe(self._began - self._ended)

    def end(self) -> None:
        """The step is over."""
        self._ended = time.perf_counter()
        if not self._is_on or self._began is None:
            return
        took, self._began = self._ended - self._began, None
        self._durations.observe(took)
        self._count.inc()
        self._batches.inc()
        limit = self._limit(took)
        if limit is not None and took > limit:
            self._slow.inc()

    def count_batch(self) -> None:
        """A batch of evaluation is over."""
        if self._is_on:
            self._batches.inc()

    def _limit(self, took: float) -> float | None:
        if self._own is not None:
            return self._own
        if self._base == 0.0:
            self._first.append(took)
            if len(self._first) < CALIBRATION:
                return None
            self._base = max(names.STEP_OBJECTIVE_S, SLACK * statistics.median(self._first))
            self._budget.set(self._base * self.growth)
            return None
        limit = self._base * self.growth
        self._budget.set(limit)
        return limit
