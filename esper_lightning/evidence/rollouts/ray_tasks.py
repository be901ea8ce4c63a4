"""Shares of runs as tasks of a Ray cluster."""

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from esper_lightning.evidence.rollouts.shares import Share, carry_out
from esper_lightning.leyline import EsperError, InvalidArgument
from esper_lightning.leyline.arguments import check_whole

log = logging.getLogger(__name__)


class RayTasks:
    """Carries out shares as tasks of Ray (Moritz et al., OSDI 2018, arXiv:1712.05889).

    All machines of the cluster see the same files under the same paths, and have the same packages.
    A task whose process or machine is lost is begun again elsewhere, and goes on with the runs that
    are not done.

    Args:
        address: of the cluster, as for ``ray.init``; ``auto`` is the one that this machine is part
            of, ``local`` starts one of this machine alone.
        retries: of a task whose process or machine was lost.

    Raises:
        InvalidArgument: Ray is not installed, or ``retries`` is negative.
    """

    def __init__(self, *, address: str = "auto", retries: int = 3) -> None:
        check_whole("retries", retries, least=0)
        self._ray = _imported()
        self._address = address
        self._retries = retries

    def __call__(self, shares: Sequence[Share]) -> dict[Path, str]:
        """Why a run failed, by folder; what was lost is not among them.

        Raises:
            EsperError: a machine refused its share.
        """
        ray = self._ray
        if not ray.is_initialized():
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.WARNING)
        asked = max((share.jobs for share in shares), default=0)
        most = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if asked > most:
            log.warning(
                "runs wait for a machine with %d CPUs, the largest of the cluster has %d; ask for "
                "fewer jobs at a time, or add a machine",
                asked,
                most,
            )
        task = ray.remote(carry_out)
        found = [
            task.options(
                num_cpus=share.jobs, max_retries=self._retries, scheduling_strategy="SPREAD"
            ).remote(share)
            for share in shares
        ]
        failures: dict[Path, str] = {}
        for number, each in enumerate(found):
            try:
                failures |= ray.get(each)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                if isinstance(cause, EsperError):
                    raise cause from None
                raise
            except ray.exceptions.RayError as error:
                log.warning("share %d of %d was lost: %s", number + 1, len(found), error)
        return failures


def _imported() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise InvalidArgument(
            f"runs on a Ray cluster need Ray, which is not installed ({error}): pip install ray"
        ) from error
