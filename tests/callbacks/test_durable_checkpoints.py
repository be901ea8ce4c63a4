"""Checkpoint files that an interruption in the middle of writing leaves as they were."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from esper_lightning.callbacks import DurableCheckpointIO


class InterruptedFile(io.FileIO):
    """Ctrl-C comes in the middle of one of its writes."""

    def __init__(self, path: Path, mode: str, write: int) -> None:
        super().__init__(path, mode)
        self.left = write

    def write(self, data: Any) -> int:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().write(data)


@pytest.mark.parametrize("write", [1, 2, 5])
def test_an_interruption_stays_one_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    path = tmp_path / "last.ckpt"
    DurableCheckpointIO().save_checkpoint({"weight": torch.zeros(3)}, path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode: InterruptedFile(path, mode, write))
        with pytest.raises(KeyboardInterrupt):
            DurableCheckpointIO().save_checkpoint({"weight": torch.ones(3)}, path)
    assert torch.equal(torch.load(path)["weight"], torch.zeros(3))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
