"""Whatever is commanded, in whatever order: nothing breaks, and a resumed run is the same."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import interrupted_runs
import pytest
import torch
from drawn_commands import Anything
from interrupted_runs import A, B, differences, run
from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks import Governor
from esper_lightning.kasmina import SeedSlot
from esper_lightning.leyline import Incubation
from esper_lightning.tolaria import HealthRules

EPOCHS = 24
BLUEPRINTS = ["noisy", "parallel_mlp", "gated_mlp"]


class Sound(Callback):
    """Everything that has grown is in the optimiser once, and nothing else is."""

    def __init__(self) -> None:
        self.checked = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        slots = [module for module in pl_module.modules() if isinstance(module, SeedSlot)]
        resting = [
            parameter
            for slot in slots
            if slot.seed is not None and not slot.trains
            for parameter in slot.seed.parameters()
        ]
        held = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
        there = {id(p) for p in pl_module.parameters()} - {id(p) for p in resting}
        assert len(held) == len(set(map(id, held)))
        assert set(map(id, held)) == there
        assert set(map(id, trainer.optimizers[0].state)) <= there
        for slot in slots:
            assert (slot.seed is None) == (slot.record.seed is None)
            assert len(slot.fossils) == len(slot.record.fossils)
        assert all(torch.isfinite(p).all() for p in pl_module.parameters())
        self.checked += 1


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The runs of ``interrupted_runs``, with commands that are drawn."""
    seed = request.node.callspec.params["seed"]
    policy = Anything(seed, slots=[A, B], blueprints=BLUEPRINTS)
    monkeypatch.setattr(interrupted_runs, "EPOCHS", dict.fromkeys(Incubation, EPOCHS))
    monkeypatch.setattr(interrupted_runs, "Unseeing", lambda _: policy)


def _run(seed: int, callbacks: Sequence[Callback] = (), **where: Any) -> Any:
    draw = random.Random(seed)
    governor = Governor(rules=HealthRules(max_rollbacks=9), snapshots=3)
    return run(
        draw.choice(list(Incubation)),
        draw.choice(["adamw", "sgd"]),
        governor=governor,
        callbacks=callbacks,
        **where,
    )


@pytest.mark.parametrize("seed", range(0, 12, 2))
def test_nothing_breaks(seed: int) -> None:
    sound = Sound()
    _run(seed, [sound])
    assert sound.checked == EPOCHS


@pytest.mark.parametrize("seed", range(1, 12, 2))
def test_every_checkpoint_resumes(tmp_path: Path, seed: int) -> None:
    whole = _run(seed, [Sound()], save_in=tmp_path)
    names = [f"{epoch}-{moment}" for epoch in range(1, EPOCHS - 1) for moment in ("end", "within")]
    for name in random.Random(seed).sample(names, 4):
        rest = _run(seed, [Sound()], ckpt_path=tmp_path / f"{name}.ckpt")
        assert differences(whole, rest) == [], name
