"""What runs reached, from the summaries that they leave."""

import logging
from collections.abc import Sequence
from pathlib import Path

from esper_lightning.leyline import EsperError, RunSummary, decode
from esper_lightning.simic.recording import SUMMARY_NAME
from esper_lightning.simic.reward import Utility, ending
from esper_lightning.simic.rollouts import Assignment, CarriesOut, Pair, decided_by
from esper_lightning.simic.validation.digests import bytes_digest
from esper_lightning.simic.validation.gate import Trial
from esper_lightning.tamiyo.learned import StoredPolicy

log = logging.getLogger(__name__)


class UtilitiesOfRuns:
    """Carries runs out, and says what the final network of each is worth beside its twin.

    Policies take what is likeliest. What counts is the objective on validation, never on test.

    Args:
        carry_out: carries out runs.
        folder: for the policies, as files.
        utility: what runs are measured by.
        objective: name of the metric.
        mode: of it, ``min`` or ``max``.
    """

    def __init__(
        self,
        *,
        carry_out: CarriesOut,
        folder: Path | str,
        utility: Utility | None = None,
        objective: str = "val/loss",
        mode: str = "min",
    ) -> None:
        self._carry_out = carry_out
        self._folder = Path(folder)
        self._utility = utility or Utility()
        self._objective, self._mode = objective, mode

    def __call__(self, trials: Sequence[Trial]) -> list[float | None]:
        """One for each, in order; None of a run that failed or left no summary to be read."""
        files: dict[int, tuple[str, ...]] = {}
        assignments = []
        for trial in trials:
            deciding = trial.deciding
            if isinstance(deciding, StoredPolicy):
                if id(deciding) not in files:
                    files[id(deciding)] = decided_by(self._kept(deciding))
                deciding = files[id(deciding)]
            assignments.append(Assignment(task=trial.task, seed=trial.seed, deciding=deciding))
        pairs = self._carry_out(assignments)
        return [
            None if pair is None else self._worth(trial, pair)
            for trial, pair in zip(trials, pairs, strict=True)
        ]

    def _kept(self, policy: StoredPolicy) -> Path:
        data = policy.to_bytes()
        path = self._folder.resolve() / f"{bytes_digest(data)[:16]}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def _worth(self, trial: Trial, pair: Pair) -> float | None:
        try:
            run, twin = (
                ending(_summary(folder), self._objective) for folder in (pair.run, pair.twin)
            )
            return self._utility.of([run], [twin], mode=self._mode)
        except (EsperError, OSError) as error:
            log.warning("%s on %s, seed %d: %s", trial.who, trial.task.name, trial.seed, error)
            return None


def _summary(folder: Path) -> RunSummary:
    path = folder / SUMMARY_NAME
    found: RunSummary = decode(path.read_bytes(), RunSummary, what=str(path))
    return found
