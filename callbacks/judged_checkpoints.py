"""Checkpoint files that hold nothing but epochs that were judged and kept."""

import logging
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

log = logging.getLogger(__name__)

_DAMAGED = (OSError, EOFError, RuntimeError, pickle.UnpicklingError)

JUDGED = "judged"
"""In the state of the governor: the epoch at whose end the network was as it is in this file; None
where steps were taken since, that nobody has judged yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedCheckpoint:
    """A file to go back to.

    Attributes:
        path: where it is.
        epoch: 0-based epoch at whose end the network was as it is there.
    """

    path: str
    epoch: int


def newest_judged(
    trainer: Trainer, *, state_key: str, needed: Iterable[str], before: int | None = None
) -> JudgedCheckpoint | None:
    """The newest of the files of all ``ModelCheckpoint`` that is good; reads them, newest first.

    A good one says that everything in it was judged, is finite, and lacks nothing that trains.

    Args:
        trainer: with the callbacks.
        state_key: of the governor, in checkpoints.
        needed: names of parameters.
        before: only networks of the end of an earlier epoch.
    """
    names = set(needed)
    for path in _written(trainer):
        try:
            checkpoint = trainer.strategy.load_checkpoint(path)
        except _DAMAGED as error:  # another may be whole
            log.warning("%s cannot be read: %s: %s", path, type(error).__name__, error)
            continue
        told: Any = checkpoint.get("callbacks", {}).get(state_key, {}).get(JUDGED)
        if told is None or not (before is None or told < before):
            continue
        held = checkpoint["state_dict"]
        if names <= held.keys() and all(_finite(tensors) for tensors in _tensors(held)):
            return JudgedCheckpoint(path=path, epoch=told)
    return None


def _written(trainer: Trainer) -> list[str]:
    """Files that are there, the one that was written last first."""
    paths = {
        str(path)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        for path in (callback.last_model_path, callback.best_model_path, *callback.best_k_models)
        if path and Path(path).exists()
    }
    return sorted(paths, key=lambda path: Path(path).stat().st_mtime, reverse=True)


def _tensors(held: dict[str, Any]) -> Iterator[Tensor]:
    return (value for value in held.values() if isinstance(value, Tensor))


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
