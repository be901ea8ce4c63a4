"""The callback that keeps ``summary.json``."""

import math
import os
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.fresh_metrics import OWN_PREFIX
from esper_lightning.callbacks.kasmina import Kasmina
from esper_lightning.callbacks.treatment import GOVERNOR
from esper_lightning.leyline import Decision, Event, RunEnded, RunSummary, pretty
from esper_lightning.nissa.versions import versions

SUMMARY_NAME = "summary.json"


class Summary(Callback):
    """Observes only: writes ``summary.json`` at the end of a fit.

    A later validation or test of the final network completes it.

    Args:
        dirpath: folder of the file; None takes the Trainer's ``default_root_dir``.
        config_digest: SHA-256 of the configuration, empty when there is none.
    """

    def __init__(self, dirpath: str | None = None, *, config_digest: str = "") -> None:
        super().__init__()
        self.dirpath = dirpath
        self.config_digest = config_digest
        self.latest: RunSummary | None = None
        self._outcome = "unfinished"
        self._stage = ""
        self._policy = ""
        self._began_s = 0.0
        self._before_s = 0.0
        self._wall_s = 0.0
        self._validation: dict[str, float] = {}
        self._test: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen for how the run ends."""
        self._stage = stage
        if stage == "fit" and trainer.is_global_zero:
            find(trainer).subscribe(self._see)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began_s = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock; the last validation of the fit stands until there is a better one."""
        self._wall_s = self._elapsed()
        self._validation = _metrics(trainer, ("test",))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is known."""
        self._write(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write what a failed run leaves."""
        if trainer.state.fn == TrainerFn.FITTING and self._began_s:
            self._wall_s = self._elapsed()
            self._outcome = f"failed: {type(exception).__name__}: {exception}"
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the validation metrics of the final network."""
        if trainer.state.fn == TrainerFn.VALIDATING and self.latest is not None:
            self._validation = _metrics(trainer, ("test", "train"))
            self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the test metrics of the final network."""
        if self.latest is not None:
            self._test = _metrics(trainer, ("val", "train"))
            self._write(trainer)

    def state_dict(self) -> dict[str, float]:
        """Training time so far, in seconds."""
        return {"wall_s": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting; to evaluate a checkpoint rewinds no clock."""
        if self._stage == "fit":
            self._before_s = state_dict["wall_s"]

    def _elapsed(self) -> float:
        return self._before_s + time.monotonic() - self._began_s

    def _see(self, event: Event) -> None:
        if isinstance(event, RunEnded):
            self._outcome = event.outcome
        elif isinstance(event, Decision) and event.policy != GOVERNOR:
            self._policy = event.policy

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        kasmina = find(trainer)
        path = Path(self.dirpath or trainer.default_root_dir) / SUMMARY_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        self.latest = self._summary(trainer, kasmina)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(pretty(self.latest))
        temporary.replace(path)

    def _summary(self, trainer: Trainer, kasmina: Kasmina) -> RunSummary:
        host_flops = kasmina.costs.host_per_sample
        records = [slot.record for slot in kasmina.bed.slots.values()]
        seed = os.environ.get("PL_GLOBAL_SEED")
        return RunSummary(
            run_id=kasmina.run_id,
            outcome=self._outcome,
            seed=None if seed is None else int(seed),
            host=type(kasmina.bed.network).__name__,
            policy=self._policy,
            incubation=kasmina.incubation.value,
            epochs=self.latest.epochs if self.latest else trainer.current_epoch,
            steps=self.latest.steps if self.latest else trainer.global_step,
            validation=self._validation,
            test=self._test,
            host_parameters=kasmina.host_parameters,
            parameters=kasmina.bed.num_parameters(),
            host_flops_per_sample=host_flops,
            flops_per_sample=kasmina.costs.per_sample,
            host_training_flops=host_flops and host_flops * kasmina.costs.num_samples,
            training_flops=kasmina.costs.total,
            wall_s=round(self._wall_s, 3),
            grown=tuple(grown for record in records for grown in record.fossils),
            culled=tuple(culled for record in records for culled in record.culls),
            versions=versions(),
            config_digest=self.config_digest,
        )


def _metrics(trainer: Trainer, but: tuple[str, ...]) -> dict[str, float]:
    """Finite metrics whose names do not begin with one of ``but``, nor with Kasmina's prefix."""
    left_out = (*but, OWN_PREFIX)
    return {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if not name.startswith(left_out) and math.isfinite(value)
    }
