"""A logger for the client neptune 1.x, which Lightning no longer has one for."""

import os
import uuid
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.logger import _convert_params
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

_DIRECTORY_VARIABLE = "NEPTUNE_DATA_DIRECTORY"


class NeptuneLogger(Logger):
    """Records a run with neptune 1.x.

    Args:
        directory: where a run that is offline is written.
        project: ``workspace/name``; None reads ``NEPTUNE_PROJECT``. Offline needs none.
        name: of the run.
        tags: of the run.
        mode: ``offline``, ``debug`` (keeps nothing), or ``async`` or ``sync``, with a server.
    """

    def __init__(
        self,
        *,
        directory: str,
        project: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        mode: Literal["offline", "debug", "async", "sync"] = "offline",
    ) -> None:
        super().__init__()
        self._directory = str(Path(directory).absolute())
        self._project = project
        self._name = name
        self._tags = list(tags)
        self._mode = mode
        self._version = uuid.uuid4().hex[:12]
        self._run: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``neptune.Run``, begun when it is first asked for."""
        if self._run is None:
            import neptune

            before = os.environ.get(_DIRECTORY_VARIABLE)
            os.environ[_DIRECTORY_VARIABLE] = self._directory
            try:
                self._run = neptune.init_run(
                    project=self._project,
                    custom_run_id=self._version,
                    name=self._name,
                    tags=self._tags,
                    mode=self._mode,
                    source_files=[],
                    git_ref=False,
                    capture_stdout=False,
                    capture_stderr=False,
                    capture_hardware_metrics=False,
                )
            finally:
                if before is None:
                    del os.environ[_DIRECTORY_VARIABLE]
                else:
                    os.environ[_DIRECTORY_VARIABLE] = before
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Record each hyper-parameter below ``parameters``."""
        for name, value in _convert_params(params).items():
            self.experiment[f"parameters/{name}"] = str(value) if value is None else value

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append each metric to its series below ``metrics``."""
        for name, value in metrics.items():
            self.experiment[f"metrics/{name}"].append(float(value), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is still in memory; the run stays open for a later test."""
        if self._run is not None:
            self._run["status"] = status
            self._run.wait(disk_only=True)

    @property
    def save_dir(self) -> str:
        """Where a run that is offline is written."""
        return self._directory

    @property
    def name(self) -> str | None:
        """Of the run."""
        return self._name

    @property
    def version(self) -> str:
        """Identifies the run, as Neptune's ``sys/custom_run_id``."""
        return self._version
