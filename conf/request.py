"""What is asked of a run as a whole: checked before it begins, answered at its end."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import hydra.utils
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_flag, check_names, check_whole
from esper_lightning.tolaria.module import METRICS

MAX_SEED = 2**32 - 1
"""The largest that NumPy takes."""

_WHICH = "the checkpoint of a run is checkpoints/last.ckpt in its folder in outputs/"


def check(cfg: DictConfig, checkpoint: type) -> None:
    """Refuse what cannot be done, before anything is trained.

    Args:
        cfg: the composed configuration.
        checkpoint: class of the callbacks that keep checkpoints.

    Raises:
        InvalidArgument: with the remedy.
    """
    _check_kinds(cfg)
    _check_metric(cfg)
    if cfg.ckpt_path is not None:
        _check_checkpoint(cfg.ckpt_path)
    elif not cfg.train:
        raise InvalidArgument(
            "train=false evaluates a checkpoint: give one, ckpt_path=.../checkpoints/last.ckpt"
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


def _check_kinds(cfg: DictConfig) -> None:
    """Refuse values of the top level, and two of the Trainer's, that are of another kind."""
    for name in ("train", "test", "print_config", "list_slots"):
        check_flag(name, cfg[name])
    check_whole("threads", cfg.threads, least=1, or_none=True)
    check_whole("seed", cfg.seed, least=0)
    if cfg.seed > MAX_SEED:
        raise InvalidArgument(f"seed must be at most {MAX_SEED}, got {cfg.seed}")
    if not isinstance(cfg.task_name, str) or not cfg.task_name:
        raise InvalidArgument(
            f"task_name must be a text that is not empty, such as train, got {cfg.task_name!r}; "
            f"digits alone are quoted: task_name=\"'5'\""
        )
    check_names("tags", cfg.tags)
    if "max_epochs" in cfg.trainer:
        check_whole("trainer.max_epochs", cfg.trainer.max_epochs, least=-1, or_none=True)
    if "accumulate_grad_batches" in cfg.trainer:
        check_whole("trainer.accumulate_grad_batches", cfg.trainer.accumulate_grad_batches, least=1)


def _check_metric(cfg: DictConfig) -> None:
    """Refuse a metric for sweepers that is not to be, or cannot be, a metric of this run."""
    metric = cfg.optimized_metric
    if metric is None:
        return
    if not isinstance(metric, str):
        raise InvalidArgument(
            f"optimized_metric must be the name of a metric, such as val/acc, or null for none, "
            f"got {metric!r}"
        )
    if metric.startswith("test"):
        raise InvalidArgument(
            f"optimized_metric={metric}: what a search chooses by must not be what the result is "
            f"measured with; take a validation metric, such as val/acc"
        )
    known = [name for name in METRICS if not name.startswith("test")]
    if _logs_only_known(cfg) and metric.startswith(("train/", "val/")) and metric not in known:
        raise InvalidArgument(
            f"optimized_metric={metric} is not a metric of this run; there are {known}"
        )


def _logs_only_known(cfg: DictConfig) -> bool:
    """Whether all that logs is of this project or of Lightning."""
    nodes = [cfg.tolaria, *(cfg.get("callbacks") or {}).values()]
    targets = [str(node.get("_target_")) for node in nodes if OmegaConf.is_dict(node)]
    return cfg.module is None and all(
        target.startswith(("esper_lightning.", "lightning.")) for target in targets
    )


def _check_checkpoint(given: object) -> None:
    """Refuse what Lightning could not read as a checkpoint."""
    if not isinstance(given, str) or not given:
        raise InvalidArgument(
            f"ckpt_path must be the path of a checkpoint, or null for none, got {given!r}"
        )
    path = Path(given)
    if not path.is_file():
        raise InvalidArgument(
            f"ckpt_path={given}: there is no such file (looked for {path.absolute()}); {_WHICH}"
        )
    if not is_zipfile(path):
        raise InvalidArgument(
            f"ckpt_path={given} is not a checkpoint: torch did not write it; {_WHICH}"
        )
    try:
        saved = torch.load(path, map_location="meta", mmap=True, weights_only=True)
    except UnpicklingError:  # objects of a module of one's own
        return
    except (RuntimeError, EOFError) as error:
        raise InvalidArgument(f"ckpt_path={given} cannot be read: {error}; {_WHICH}") from error
    if not isinstance(saved, dict) or "state_dict" not in saved:
        raise InvalidArgument(
            f"ckpt_path={given} is not a checkpoint of Lightning: no state_dict in it; {_WHICH}"
        )


def _choosing(cfg: DictConfig, checkpoint: type) -> list[str]:
    """Names of the callbacks that keep the checkpoint with the best value of a metric."""
    monitoring = {
        name: hydra.utils.get_object(node["_target_"])
        for name, node in (cfg.get("callbacks") or {}).items()
        if OmegaConf.is_dict(node) and node.get("monitor") and node.get("_target_")
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
            f"optimized_metric={name} is not a metric of this run; there are {there}. The run is "
            f"finished, and its files are kept"
        )
    return results[name]
