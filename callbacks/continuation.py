"""Observes only: knows how a run that was interrupted, or had nothing left to do, goes on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from esper_lightning.leyline import InvalidArgument

INTERRUPTED = 130
"""Exit code of a process that Ctrl-C ended, as shells have it: 128 and the number of SIGINT."""


class Continuation(Callback):
    """Observes only: sees whether a fit trained at all, and says how to go on.

    Args:
        ckpt_path: from which the fit goes on, None for a new one.
    """

    def __init__(self, ckpt_path: str | Path | None = None) -> None:
        self.ckpt_path = ckpt_path
        self._is_idle = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing was trained yet."""
        self._is_idle = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is something to train."""
        self._is_idle = False

    @contextmanager
    def told(self, trainer: Trainer, tell: Callable[[str], None]) -> Iterator[None]:
        """Fit and evaluate inside.

        Args:
            trainer: that does it.
            tell: shows a line to the user.

        Raises:
            InvalidArgument: the weights of ``ckpt_path`` are not those of this module.
            SystemExit: with ``INTERRUPTED``, after Ctrl-C. Lightning has shut the run down then.
        """
        try:
            yield
        except RuntimeError as error:
            if self.ckpt_path is None or "loading state_dict" not in str(error):
                raise
            raise InvalidArgument(
                f"ckpt_path={self.ckpt_path} holds another network: {error}\nhost and its "
                f"arguments, or module, must be those of the run that left it; they are in "
                f"config.yaml in that run's folder"
            ) from error
        except SystemExit as error:
            # Lightning turns the one into the other.
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            tell(self.after_interruption(trainer))
            sys.exit(INTERRUPTED)
        for name, reached, limit in (
            ("max_epochs", trainer.current_epoch, trainer.max_epochs or -1),
            ("max_steps", trainer.global_step, trainer.max_steps),
        ):
            if self._is_idle and self.ckpt_path is not None and 0 < limit <= reached:
                tell(
                    f"nothing was trained: {self.ckpt_path} had already reached "
                    f"trainer.{name}={limit}; raise it to go on"
                )

    def after_interruption(self, trainer: Trainer) -> str:
        """Where a run was interrupted, and with which checkpoint it goes on."""
        path = _latest(trainer) or self.ckpt_path
        if trainer.state.fn is not TrainerFn.FITTING:
            found = "" if path is None else f"; evaluate {path} with train=false ckpt_path={path}"
            return f"interrupted during evaluation{found}"
        when = f"interrupted in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        if path is None:
            return f"{when}, before there was a checkpoint"
        return f"{when}; to go on, give the same command and ckpt_path={path}"


def _latest(trainer: Trainer) -> Path | None:
    """The checkpoint that was written last, of those that are there."""
    paths = {
        Path(path)
        for kept in trainer.checkpoint_callbacks
        if isinstance(kept, ModelCheckpoint)
        for path in (kept.best_model_path, kept.last_model_path)
        if path
    }
    there = [path for path in paths if path.exists()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)
