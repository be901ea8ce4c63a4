"""What Lightning leaves out of a checkpoint: random generators, and a plateau's last step."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.utilities import rank_zero_warn

from esper_lightning.kasmina import Ranks
from esper_lightning.kasmina.random_stream import torch_generators

Saved = TypeVar("Saved")

_KEY = "esper_lightning"
"""Of a checkpoint."""


class Resumption:
    """Saves in a checkpoint what Lightning leaves out, and restores it when a fit goes on from it.

    An epoch's ``ReduceLROnPlateau`` steps after the epoch's checkpoint was saved
    (https://github.com/Lightning-AI/pytorch-lightning/issues/14699), with a metric that only the
    process that saved it knows: the metric is saved, and the step is taken when the fit goes on.

    A fit that goes on has made its first iterator over the data before anything could be restored,
    at the cost of a draw from the global generator: it is made once more, as the uninterrupted run
    makes it at that moment.
    """

    def __init__(self) -> None:
        self._state: Mapping[str, Any] | None = None

    def save(
        self, checkpoint: dict[str, Any], trainer: Trainer, ranks: Ranks, *, inexact: str
    ) -> None:
        """Add the state of this moment, which loads with ``weights_only=True``.

        Args:
            checkpoint: to add it to.
            trainer: of the fit.
            ranks: each of them saves its own.
            inexact: why no fit goes on exactly from this moment, empty if one does.
        """
        if inexact:
            rank_zero_warn(
                f"a fit that goes on from this checkpoint is not the same run: {inexact}"
            )
        state = {
            "random": random_state(trainer.strategy.root_device),
            "plateau": _pending_plateau_steps(trainer),
        }
        checkpoint[_KEY] = {"ranks": ranks.gather(state), "inexact": inexact}

    def load(self, checkpoint: Mapping[str, Any], ranks: Ranks) -> None:
        """Hold the state until the fit goes on; warn if it is not going to be the same."""
        saved = checkpoint.get(_KEY)
        if saved is None:
            return
        if why := saved["inexact"] or other_size(saved["ranks"], ranks):
            rank_zero_warn(f"this fit is not the same run as the one that was left: {why}")
        self._state = of_rank(saved["ranks"], ranks)

    def drop(self) -> None:
        """Hold nothing: a fit begins that may go on from no checkpoint."""
        self._state = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Optimisers, schedulers and loops are restored by now."""
        if self._state is None:
            return
        for number, value in self._state["plateau"]:
            module.lr_scheduler_step(trainer.lr_scheduler_configs[number].scheduler, value)
        loop = trainer.fit_loop
        if loop.restarted_on_epoch_end:
            _end_epoch(loop)
        if loop.restarted_mid_epoch and loop._combined_loader_states_to_load:
            loop._load_combined_loader_states()
            iter(_fetcher(trainer))
        restore_random(self._state["random"], trainer.strategy.root_device)

    def on_train_epoch_start(self, trainer: Trainer) -> None:
        """Of a fit that goes on from the end of an epoch; none comes before."""
        if self._state is None:
            return
        restore_random(self._state["random"], trainer.strategy.root_device)
        fetcher = _fetcher(trainer)
        # Early releases of Lightning know no such attribute, and make the iterator anew themselves.
        resuming = getattr(trainer.fit_loop, "is_resuming", False)
        if resuming and fetcher.length is not None:  # else batches were fetched, and would be lost
            iter(fetcher)
        self._state = None

    def on_train_batch_start(self) -> None:
        """Training is under way again."""
        self._state = None

    def on_fit_end(self, trainer: Trainer) -> None:
        """Of a fit that had nothing left to do, it may be: no other hook of it ran."""
        if self._state is not None:
            restore_random(self._state["random"], trainer.strategy.root_device)
            self._state = None


def of_rank(saved: Sequence[Saved], ranks: Ranks) -> Saved:
    """What this rank saved; of another number of ranks, what the first one did."""
    return saved[0] if len(saved) != ranks.size else saved[ranks.rank]


def other_size(saved: Sequence[object], ranks: Ranks) -> str:
    """What keeps a fit from going on exactly with another number of processes; empty if nothing."""
    if len(saved) == ranks.size:
        return ""
    return (
        f"it was saved by a run of {len(saved)} processes, and this one has {ranks.size}; go on "
        f"with as many"
    )


def random_state(device: torch.device) -> dict[str, Any]:
    """Of the global generators of Python, NumPy and torch, on the CPU and on ``device``."""
    # pylint cannot look into numpy's compiled generators.
    legacy: dict[str, Any] = np.random.get_state(legacy=False)  # pylint: disable=unexpected-keyword-arg
    key = torch.from_numpy(legacy["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": {**legacy, "state": {**legacy["state"], "key": key}},
        "torch": [generator.get_state() for generator in torch_generators(device)],
    }


def restore_random(state: Mapping[str, Any], device: torch.device) -> None:
    """Go on where :func:`random_state` was taken; a device that it does not know is left alone."""
    random.setstate(state["python"])
    legacy = state["numpy"]
    key = legacy["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**legacy, "state": {**legacy["state"], "key": key}})
    for generator, saved in zip(torch_generators(device), state["torch"], strict=False):
        generator.set_state(saved.cpu())


def why_inexact(trainer: Trainer) -> str:
    """What keeps a fit from going on exactly from this moment within an epoch; empty if nothing."""
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress.current
    batches: Any = loop.epoch_loop.batch_progress.current
    if batches.processed < batches.ready:
        return "it was saved in the middle of a step; save at the end of a step or of an epoch"
    if loop._should_accumulate():
        return (
            "it was saved between two batches of one optimiser step, and gradients are not saved; "
            "save after a step of the optimiser"
        )
    is_last = loop.epoch_loop.batch_progress.is_last_batch
    if is_last and batches.completed < batches.processed:
        return (
            "it was saved after the last batch of an epoch and before its validation, and "
            "Lightning goes on with the next epoch: this one's validation and the boundary at "
            "which slots move are left out; save at the end of epochs, or at other steps"
        )
    if epochs.completed < epochs.processed:
        return (
            "it was saved at the end of an epoch by a callback that runs before Kasmina, and the "
            "boundary at which slots move is left out; save with a ModelCheckpoint"
        )
    return ""


def _end_epoch(loop: _FitLoop) -> None:
    """Be past an epoch at whose end the checkpoint was saved.

    Where a run is limited by steps, Lightning 2.6 would end that epoch a second time, and count it
    twice.
    """
    loop.epoch_progress.increment_completed()
    loop.reset_restart_stage()
    _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]


def _fetcher(trainer: Trainer) -> Any:
    return trainer.fit_loop._data_fetcher


def _pending_plateau_steps(trainer: Trainer) -> list[tuple[int, Any]]:
    """Schedulers, by number, that are to step at the end of this epoch, each with its metric."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    if progress.processed == progress.completed:
        return []  # not within an epoch's end
    metrics = trainer.callback_metrics
    return [
        (number, metrics[config.monitor].detach().cpu())
        for number, config in enumerate(trainer.lr_scheduler_configs)
        if config.reduce_on_plateau
        and config.interval == "epoch"
        and (trainer.current_epoch + 1) % config.frequency == 0
        and config.monitor in metrics
    ]
