"""What Lightning forgets, and odd moments: loaders, schedulers and ways of training of others."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted_runs import differences, run
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from runs import FREE, Plain, Script, digits_run, plain_data, plant, same, weights
from torch import nn
from torch.utils.data import DataLoader

from esper_lightning.callbacks import DurableCheckpointIO, Kasmina, Summary, Tamiyo
from esper_lightning.leyline import DecodeError, Incubation, UnknownBlueprint
from esper_lightning.tamiyo import Heuristic

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


class Drawing(Plain):
    """Dropout, and a schedule that asks how long the run is, which makes an iterator early."""

    def __init__(self, scheduler: str) -> None:
        super().__init__()
        self.net.append(nn.Dropout(0.1))
        self.scheduler = scheduler

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        if self.scheduler == "plateau":
            # No improvement is ever enough: the rate falls in every other epoch.
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, patience=1, threshold=1e9, threshold_mode="abs"
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"},
            }
        one_cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return [optimizer], [{"scheduler": one_cycle, "interval": "step"}]


def foreign_run(
    scheduler: str, num_workers: int = 0, *, save_in: Path | None = None, resume: Path | None = None
) -> tuple[dict[str, torch.Tensor], Any, Any]:
    """A run whose order of data is drawn from the global generator."""
    seed_everything(0 if resume is None else 5, verbose=False)
    module = Drawing(scheduler)
    train, val = plain_data()
    shuffled: Any = DataLoader(train.dataset, batch_size=32, shuffle=True, num_workers=num_workers)
    every = ModelCheckpoint(
        dirpath=save_in,
        filename="{epoch}",
        auto_insert_metric_name=False,
        save_top_k=-1,
        save_on_train_epoch_end=True,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=6,
        logger=False,
        enable_checkpointing=save_in is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            Kasmina(slots=["net.0"], monitor="val_loss", rules=FREE),
            Tamiyo(risk=False, policy=Script({1: [plant("net.0", "parallel_mlp")]})),
            *([every] if save_in is not None else []),
        ],
    )
    trainer.fit(module, shuffled, val, ckpt_path=resume)
    optimizer = copy.deepcopy(trainer.optimizers[0].state_dict())
    return weights(module), optimizer, trainer.lr_scheduler_configs[0].scheduler.state_dict()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_order_drawn_from_the_global_generator_goes_on(tmp_path: Path, num_workers: int) -> None:
    whole = foreign_run("one_cycle", num_workers, save_in=tmp_path)
    for epoch in (0, 3):
        rest = foreign_run("one_cycle", num_workers, resume=tmp_path / f"{epoch}.ckpt")
        assert same(rest[0], whole[0])
        assert str(rest[1:]) == str(whole[1:])


def test_the_last_step_of_a_plateau_is_not_lost(tmp_path: Path) -> None:
    whole = foreign_run("plateau", save_in=tmp_path)
    assert whole[2]["last_epoch"] == 6
    assert whole[1]["param_groups"][0]["lr"] < 0.1
    for epoch in range(5):
        rest = foreign_run("plateau", resume=tmp_path / f"{epoch}.ckpt")
        assert same(rest[0], whole[0])
        assert str(rest[1:]) == str(whole[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 30},
        {"accumulate_grad_batches": 2},
        {"val_check_interval": 2},
        {"val_check_interval": 3},
        {"check_val_every_n_epoch": 2},
        {"limit_train_batches": 3},
        {"gradient_clip_val": 0.1},
    ],
    ids=str,
)
def test_ways_of_training_resume_alike(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = run(Incubation.STRAIGHT_THROUGH, "adamw", save_in=tmp_path, **options)
    for name in ("3-end", "4-within"):
        rest = run(
            Incubation.STRAIGHT_THROUGH, "adamw", ckpt_path=tmp_path / f"{name}.ckpt", **options
        )
        assert differences(whole, rest) == [], name


class AtValidation(Checkpoint):
    """Saves after validation, as ``ModelCheckpoint`` does where not every epoch has one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize("interval", [1.0, 2])
def test_a_checkpoint_of_a_validation_resumes_exactly(tmp_path: Path, interval: float) -> None:
    lines = {0: [plant()], 1: [plant("features.0", "conv_residual")]}
    common: dict[str, Any] = {"incubation": Incubation.STRAIGHT_THROUGH, "epochs": 5}
    whole, _, _ = digits_run(
        Script(lines),
        callbacks=[AtValidation(tmp_path)],
        enable_checkpointing=True,
        val_check_interval=interval,
        **common,
    )
    for path in tmp_path.glob("*.ckpt"):
        rest, _, _ = digits_run(
            Script(lines), ckpt_path=str(path), val_check_interval=interval, **common
        )
        assert same(weights(whole), weights(rest)), path.name


class AtBatch(Checkpoint):
    """Saves after one batch of every epoch."""

    def __init__(self, folder: Path, batch: int) -> None:
        self.folder, self.batch = folder, batch

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, b: Any, i: int
    ) -> None:
        if i == self.batch:
            trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


@pytest.mark.parametrize(
    ("batch", "options", "told"),
    [
        (4, {}, "after the last batch of an epoch and before its validation"),
        (2, {"accumulate_grad_batches": 2}, "between two batches of one optimiser step"),
    ],
)
def test_a_moment_from_which_no_run_goes_on_exactly_is_told(
    tmp_path: Path, batch: int, options: dict[str, Any], told: str
) -> None:
    with pytest.warns(UserWarning, match=told):
        digits_run(
            Script({0: [plant()]}),
            callbacks=[AtBatch(tmp_path, batch)],
            enable_checkpointing=True,
            **options,
        )
    with pytest.warns(UserWarning, match=f"this fit is not the same run.*{told}"):
        _, kasmina, trainer = digits_run(
            Script({0: [plant()]}), ckpt_path=str(tmp_path / "1.ckpt"), **options
        )
    assert trainer.current_epoch == 4
    assert kasmina.bed.slots["features.1"].record.seed is not None


def test_evaluating_a_checkpoint_rewinds_nothing(tmp_path: Path) -> None:
    summary, policy = Summary(), Heuristic()
    model, kasmina, trainer = digits_run(
        policy,
        epochs=5,
        callbacks=[AtBatch(tmp_path, 1), summary],
        enable_checkpointing=True,
        default_root_dir=tmp_path,
    )
    before = str((kasmina.state_dict(), policy.state_dict(), summary.latest.wall_s))
    trainer.validate(model, datamodule=trainer.datamodule, ckpt_path=tmp_path / "1.ckpt")
    assert str((kasmina.state_dict(), policy.state_dict(), summary.latest.wall_s)) == before


def test_a_checkpoint_of_another_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    digits_run(Script({}), callbacks=[AtBatch(tmp_path, 1)], enable_checkpointing=True)
    held = torch.load(tmp_path / "1.ckpt", weights_only=True)
    held["callbacks"]["Kasmina"]["version"] = 99
    torch.save(held, tmp_path / "new.ckpt")
    with pytest.raises(DecodeError, match="version 99, this release reads version 2; resume with"):
        digits_run(Script({}), ckpt_path=str(tmp_path / "new.ckpt"))


def test_a_blueprint_that_is_gone_is_named(tmp_path: Path) -> None:
    digits_run(Script({0: [plant()]}), callbacks=[AtBatch(tmp_path, 1)], enable_checkpointing=True)
    path = tmp_path / "1.ckpt"
    torch.save(renamed(path, "parallel_conv", "parallel_cone"), path)
    told = r"slot 'features.1' cannot be built any more: no blueprint 'parallel_cone'"
    with pytest.raises(UnknownBlueprint, match=told):
        digits_run(Script({}), ckpt_path=str(path))


def renamed(path: Path, blueprint: str, other: str) -> dict[str, Any]:
    """A checkpoint whose slots name another blueprint, of as many letters."""
    held: dict[str, Any] = torch.load(path, weights_only=True)
    for name, value in held["state_dict"].items():
        if name.endswith("_extra_state"):
            raw = value.numpy().tobytes().replace(blueprint.encode(), other.encode())
            held["state_dict"][name] = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    return held


def test_a_write_that_fails_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path, writer = tmp_path / "folder" / "last.ckpt", DurableCheckpointIO()
    writer.save_checkpoint({"a": 1}, path)
    with pytest.raises(AttributeError, match="local object"):
        writer.save_checkpoint({"a": lambda: 1}, path)
    assert writer.load_checkpoint(path) == {"a": 1}
    assert [found.name for found in path.parent.iterdir()] == ["last.ckpt"]
    with pytest.raises(TypeError, match="storage_options"):
        writer.save_checkpoint({"a": 2}, path, storage_options={})


def test_a_remote_checkpoint_is_left_to_lightning() -> None:
    writer = DurableCheckpointIO()
    writer.save_checkpoint({"a": 1}, "memory://here/last.ckpt")
    assert writer.load_checkpoint("memory://here/last.ckpt") == {"a": 1}
