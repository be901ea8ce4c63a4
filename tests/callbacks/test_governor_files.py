"""Which checkpoints are good, and when a rollback goes to one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from governed_runs import Poison, Weights, train
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from runs import (
    listen,
    same,
)

from esper_lightning.callbacks import Governor
from esper_lightning.leyline import (
    AlarmLevel,
    Intervention,
    TrainingHalted,
)
from esper_lightning.tolaria import HealthRules, is_finite


def test_rollbacks_in_a_row_go_further_back_then_stop(tmp_path: Path) -> None:
    """The only file holds, from the first rollback on, what was tried already."""
    checkpoint = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    poison = Poison([3, 4, 5, 6])
    governor = Governor(snapshots=2)
    with pytest.raises(TrainingHalted) as error:
        train(
            None,
            governor=governor,
            callbacks=[poison, checkpoint],
            enable_checkpointing=True,
        )
    assert poison.seen == [3, 4, 5, 6]
    kasmina = governor._kasmina
    stepped_in = [event for event in listen(kasmina) if isinstance(event, Intervention)]
    assert [(e.level, e.restored) for e in stepped_in] == [
        (AlarmLevel.SEVERE, 2),
        (AlarmLevel.SEVERE, 1),
        (AlarmLevel.SEVERE, 1),
    ]
    kept = [epoch for epoch, value in enumerate(kasmina.bed.history) if value is not None]
    assert kept == [0, 1], "no gate hears of what was undone"
    for word in ("epoch 6: the training loss is nan", "3 rollbacks", "[3, 4, 5]", "last.ckpt"):
        assert word in str(error.value)
    assert all(bool(torch.isfinite(p).all()) for p in kasmina.bed.network.parameters())


def test_a_file_is_gone_back_to_that_is_older_than_what_was_tried(tmp_path: Path) -> None:
    every = ModelCheckpoint(
        dirpath=tmp_path, monitor="val/loss", save_top_k=-1, save_on_train_epoch_end=True
    )
    last = ModelCheckpoint(dirpath=tmp_path, filename="newest", save_on_train_epoch_end=True)
    weights = Weights()
    _, kasmina, events = train(
        None,
        governor=Governor(snapshots=2),
        callbacks=[Poison([4, 5, 6]), weights, every, last],
        enable_checkpointing=True,
        epochs=8,
    )
    stepped_in = [event for event in events if isinstance(event, Intervention)]
    assert [(e.epoch, e.level, e.restored) for e in stepped_in] == [
        (4, AlarmLevel.SEVERE, 3),
        (5, AlarmLevel.SEVERE, 2),
        (6, AlarmLevel.MAJOR, 1),
    ]
    was = weights.by_epoch
    for after, before in ((4, 3), (5, 2), (6, 1)):
        assert same(was[after], was[before])
        assert not same(was[after], was[before - 1])
    kept = [epoch for epoch, value in enumerate(kasmina.bed.history) if value is not None]
    assert kept == [0, 1, 7]


@pytest.mark.filterwarnings("ignore:.*a fit that goes on from this checkpoint is not the same")
@pytest.mark.parametrize(
    ("saves", "options"),
    [
        ({"every_n_train_steps": 2}, {}),
        ({}, {"check_val_every_n_epoch": 2}),
        ({"save_top_k": 1}, {"val_check_interval": 3}),
    ],
    ids=["steps", "validation of some epochs", "validation within epochs"],
)
def test_a_file_with_steps_that_nobody_judged_is_not_called_good(
    tmp_path: Path, saves: dict[str, Any], options: dict[str, Any]
) -> None:
    """Written before the boundary, with poison in it or without."""
    saved = ModelCheckpoint(
        dirpath=tmp_path, filename="last", enable_version_counter=False, **saves
    )
    governor = Governor(snapshots=1)
    with pytest.raises(TrainingHalted, match="the last good checkpoint is none") as error:
        train(
            None,
            governor=governor,
            callbacks=[Poison([3, 4, 5, 6]), saved],
            enable_checkpointing=True,
            **options,
        )
    assert "end of epoch 2," in str(error.value)
    levels = [e.level for e in listen(governor._kasmina) if isinstance(e, Intervention)]
    assert levels == [AlarmLevel.SEVERE] * 3
    assert is_finite(governor._module)


class Mangled(Callback):
    """Changes a checkpoint's content before it is written."""

    def __init__(self, change: Callable[[dict[str, Any]], None]) -> None:
        self.change = change

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.change(checkpoint)


def _spoil(checkpoint: dict[str, Any]) -> None:
    name = "host.head.weight"
    checkpoint["state_dict"][name] = checkpoint["state_dict"][name] * float("nan")


@pytest.mark.parametrize(
    "change",
    [
        _spoil,
        lambda checkpoint: checkpoint["state_dict"].pop("host.head.weight"),
        lambda checkpoint: checkpoint.pop("callbacks"),
    ],
    ids=["not finite", "not whole", "of no governor"],
)
def test_a_file_that_is_not_whole_is_not_called_good(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    last = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    governor = Governor(rules=HealthRules(max_rollbacks=1))
    with pytest.raises(TrainingHalted, match="the last good checkpoint is none"):
        train(
            None,
            governor=governor,
            callbacks=[Poison([1, 2]), Mangled(change), last],
            enable_checkpointing=True,
            epochs=4,
        )


class Damaging(Callback):
    """Leaves only the beginning of each file there is, so many bytes."""

    def __init__(self, folder: Path, length: int) -> None:
        self.folder, self.length = folder, length

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for path in self.folder.glob("*.ckpt"):
            path.write_bytes(path.read_bytes()[: self.length])


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_a_damaged_file_is_passed_over(tmp_path: Path, length: int) -> None:
    last = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    governor = Governor(rules=HealthRules(max_rollbacks=1))
    damaging = Damaging(tmp_path, length)
    with pytest.raises(TrainingHalted, match="the last good checkpoint is none"):
        train(
            None,
            governor=governor,
            callbacks=[Poison([1, 2]), damaging, last],
            enable_checkpointing=True,
            epochs=4,
        )
