"""Checkpoint files that a kill in the middle of writing cannot destroy."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

SUFFIX = ".partial"
"""Of the file that is being written; the next checkpoint of the same name writes over it."""


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name, syncs it to disk, and renames it.

    Under the final name there is at every moment either the last checkpoint or the new one, whole.
    Lightning's own class writes to the system's folder for temporary files and moves the file from
    there: it does not sync, and where that folder is on another disk the move is a copy, which cuts
    the last checkpoint to nothing before the new one is there.

    For a Trainer: ``Trainer(plugins=[DurableCheckpointIO()])``. A path with a protocol (``s3://``)
    is left to Lightning.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` as ``path``.

        Raises:
            TypeError: ``storage_options`` are given.
            OSError: it cannot be written; what was there stays.
            KeyboardInterrupt: Ctrl-C came while it was written; what was there stays.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(final.name + SUFFIX)
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, final)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None  # torch fails at closing a file that Ctrl-C cut
            raise
        _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
