"""What is asked of a run as a whole: checked before it begins, answered at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from esper_lightning.leyline import InvalidArgument


def check(cfg: DictConfig, checkpoint: type) -> None:
    """Refuse what cannot be done, before anything is trained.

    Args:
        cfg: the composed configuration.
        checkpoint: class of the callbacks that keep checkpoints.

    Raises:
        InvalidArgument: with the remedy.
    """
    metric = cfg.optimized_metric
    if metric is not None and metric.startswith("test"):
        raise InvalidArgument(
            f"optimized_metric={metric}: what a search chooses by must not be what the result is "
            f"measured with; take a validation metric, such as val/acc"
        )
    if cfg.ckpt_path is None:
        if not cfg.train:
            raise InvalidArgument(
                "train=false evaluates a checkpoint: give one, ckpt_path=.../checkpoints/last.ckpt"
            )
    elif not Path(cfg.ckpt_path).is_file():
        raise InvalidArgument(
            f"ckpt_path={cfg.ckpt_path}: there is no such file (looked for "
            f"{Path(cfg.ckpt_path).absolute()}); the checkpoint of a run is "
            f"checkpoints/last.ckpt in its folder in outputs/"
        )
    if cfg.evaluate not in ("last", "best"):
        raise InvalidArgument(f"evaluate must be last or best, got {cfg.evaluate!r}")
    if cfg.train and cfg.evaluate == "best":
        choosing = _choosing(cfg, checkpoint)
        if len(choosing) != 1:
            raise InvalidArgument(
                f"evaluate=best needs exactly one {checkpoint.__name__} with a monitor, got "
                f"{len(choosing)} {choosing}: add callbacks=best, or drop the others"
            )


def check_processes(trainer: Any) -> None:
    """Refuse a sweep whose runs would start processes.

    Args:
        trainer: of Lightning.

    Raises:
        InvalidArgument: with the remedy.
    """
    sweeping = HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
    if not sweeping or trainer.world_size == 1:
        return
    if not trainer.strategy.cluster_environment.creates_processes_externally:
        raise InvalidArgument(
            f"with --multirun a run cannot start its {trainer.world_size} processes, each of which "
            f"would begin the whole sweep again; start runs one by one, or with a launcher that "
            f"starts the processes, such as hydra/launcher=submitit_slurm"
        )


def _choosing(cfg: DictConfig, checkpoint: type) -> list[str]:
    """Names of the callbacks that keep the checkpoint with the best value of a metric."""
    monitoring = {
        name: hydra.utils.get_object(node["_target_"])
        for name, node in (cfg.get("callbacks") or {}).items()
        if node is not None and node.get("monitor")
    }
    return [
        f"callbacks.{name}"
        for name, made in monitoring.items()
        if isinstance(made, type) and issubclass(made, checkpoint)
    ]


def objective(results: Mapping[str, float], name: str | None) -> float | None:
    """The value of the metric ``name``, for a sweeper; None when none is asked for.

    Raises:
        InvalidArgument: the run has no such metric.
    """
    if name is None:
        return None
    if name not in results:
        there = sorted(metric for metric in results if not metric.startswith("test"))
        raise InvalidArgument(
            f"optimized_metric={name} is not a metric of this run; there are {there}"
        )
    return results[name]
