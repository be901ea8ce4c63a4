"""Shares of runs as jobs of Slurm."""

import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from esper_lightning.evidence.rollouts.shares import Share, carry_out
from esper_lightning.leyline import InvalidArgument

log = logging.getLogger(__name__)


class BatchJobs:
    """Carries out shares as an array of Slurm jobs, by submitit.

    All machines see the same files under the same paths, and have the same packages. A job that is
    lost, or comes to its time limit, is not begun again by itself: what is not done is asked for
    again.

    Args:
        folder: for what submitit writes; all machines see it.
        cluster: ``slurm``; ``local`` is processes of this machine; None is Slurm where there is
            one.
        parameters: of a job, as submitit calls them: ``timeout_min``, ``slurm_partition``, ...

    Raises:
        InvalidArgument: submitit is not installed.
    """

    def __init__(
        self,
        *,
        folder: Path | str,
        cluster: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        self._submitit = _imported()
        self._folder = Path(folder).resolve()
        self._cluster = cluster
        self._parameters = {"timeout_min": 60, **(parameters or {})}

    def __call__(self, shares: Sequence[Share]) -> dict[Path, str]:
        """Why a run failed, by folder; what was lost is not among them."""
        executor = self._submitit.AutoExecutor(folder=self._folder, cluster=self._cluster)
        jobs = max(share.jobs for share in shares)
        executor.update_parameters(**{"cpus_per_task": jobs, **self._parameters})
        failures: dict[Path, str] = {}
        for job in executor.map_array(carry_out, shares):
            error = job.exception()  # waits
            if error is None:
                failures |= job.result()
            else:
                log.warning("job %s was lost: %s", job.job_id, error)
        return failures


def _imported() -> Any:
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError as error:
        raise InvalidArgument(
            f"runs as Slurm jobs need submitit, which is not installed ({error}): "
            f"pip install submitit"
        ) from error
