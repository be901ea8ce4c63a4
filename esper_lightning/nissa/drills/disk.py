"""A full disk."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from esper_lightning.callbacks import DurableCheckpointIO
from esper_lightning.callbacks.durable_checkpoints import SUFFIX
from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.drills.policies import PLANTED, PlantsOnce
from esper_lightning.nissa.drills.scene import Drill, Scene

FULL = Path("/dev/full")
"""Takes no byte: the kernel says that there is no space left."""


def _full_disk(scene: Scene) -> None:
    if not FULL.exists():
        raise InvalidArgument(f"this drill needs {FULL}, which Linux has")
    last = scene.folder / "last.ckpt"
    partial = last.with_name(last.name + SUFFIX)

    def full_from(epoch: int) -> None:
        if epoch == PLANTED + 2:
            scene.fail("from here on a checkpoint finds no space on the disk")
            partial.symlink_to(FULL)

    def fit(**more: Any) -> None:
        checkpoint = ModelCheckpoint(
            scene.folder, "last", enable_version_counter=False, save_on_train_epoch_end=True
        )
        scene.fit(
            PlantsOnce("parallel_conv", {"expansion": 1.0}),
            callbacks=[checkpoint],
            enable_checkpointing=True,
            plugins=[DurableCheckpointIO()],
            **more,
        )

    try:
        fit(at_epoch=full_from)
    except (OSError, RuntimeError) as error:  # torch may say it in its own words
        scene.react("stop", f"the run ends and says why: {error}")
    if partial.is_symlink():
        scene.wrong(f"{partial.name} was left behind")
        return
    fit(ckpt_path=last, at_epoch=lambda epoch: _resumed(scene, epoch))


def _resumed(scene: Scene, epoch: int) -> None:
    if epoch == PLANTED + 2:
        scene.react("resume", f"the last checkpoint is whole, and goes on with epoch {epoch}")


DRILLS = (
    Drill(
        name="full_disk",
        text="a checkpoint finds no space; the run ends, and the one before it is whole.",
        alerts=("tolaria_run_failed",),
        reactions=("stop", "resume"),
        play=_full_disk,
    ),
)
