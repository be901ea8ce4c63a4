"""What the other tests see on a CPU, on a CUDA device."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from interrupted_runs import LENIENT, differences, run
from lightning.pytorch import Callback, LightningModule, Trainer
from runs import Script, digits_run, listen, moves, plant, same, tell, weights

from esper_lightning.callbacks import Governor
from esper_lightning.kasmina import LifecycleRules
from esper_lightning.leyline import BlendSchedule, CommandKind, Decision, Incubation, Intervention
from esper_lightning.tamiyo import Choice, Never

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

GPU: dict[str, Any] = {"accelerator": "gpu", "devices": 1}
A, B = "features.1", "features.2"
RULES = LifecycleRules(blend=BlendSchedule(num_steps=3), embargo=1, gates=LENIENT)
LINES = {
    0: [plant(A), plant(B, "conv_residual")],
    5: [tell(CommandKind.FOSSILIZE, A), tell(CommandKind.CULL, B)],
    7: [tell(CommandKind.PRUNE, A)],
}


@pytest.fixture(autouse=True)
def repeats_itself() -> Iterator[None]:
    """What ``Trainer(deterministic=True)`` needs of cuBLAS."""
    with mock.patch.dict(os.environ, CUBLAS_WORKSPACE_CONFIG=":4096:8"):
        yield


@pytest.mark.parametrize("incubation", Incubation, ids=lambda each: each.value)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "16-mixed"])
def test_seeds_go_through_their_lives(precision: str, incubation: Incubation) -> None:
    module, kasmina, _ = digits_run(
        Script(LINES), epochs=10, incubation=incubation, rules=RULES, precision=precision, **GPU
    )
    assert not [e for e in listen(kasmina) if isinstance(e, Decision) and e.refused]
    assert "FOSSILIZED" in moves(listen(kasmina), A)
    assert moves(listen(kasmina), A).count("CULLED") == 1
    assert "CULLED" in moves(listen(kasmina), B)
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert {slot.alpha.device.type for slot in kasmina.bed.slots.values()} <= {"cuda", "cpu"}


@pytest.mark.parametrize("incubation", [Incubation.STRAIGHT_THROUGH, Incubation.SHADOW])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_seed_in_training_leaves_the_host_bit_identical(
    precision: str, incubation: Incubation
) -> None:
    options: dict[str, Any] = {
        "rules": LifecycleRules(min_ages={"TRAINING": 9}),
        "incubation": incubation,
        "precision": precision,
        "slots": [A],
        **GPU,
    }
    alone, _, _ = digits_run(Never(), **options)
    beside, kasmina, _ = digits_run(Script({0: [plant(A)]}), **options)
    assert "TRAINING" in moves(listen(kasmina), A)
    theirs = weights(beside)
    for name, value in weights(alone).items():
        if not name.endswith(("_extra_state", "alpha")):
            assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("incubation", Incubation, ids=lambda each: each.value)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_is_the_same(tmp_path: Path, optimizer: str, incubation: Incubation) -> None:
    options: dict[str, Any] = {**GPU, "deterministic": True}
    whole = run(incubation, optimizer, save_in=tmp_path, **options)
    for name in ("1-end", "3-within", "5-end", "7-end"):
        rest = run(incubation, optimizer, ckpt_path=tmp_path / f"{name}.ckpt", **options)
        assert differences(whole, rest) == [], name


class Weights(Callback):
    """What the network was after every boundary."""

    def __init__(self) -> None:
        self.by_epoch: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.by_epoch[trainer.current_epoch - 1] = {
            name: value.clone()
            for name, value in pl_module.state_dict().items()
            if not name.endswith("_extra_state")
        }


def test_a_rollback_restores_what_was() -> None:
    back = Choice(kind=CommandKind.ROLLBACK, reason="told to", parameters={"boundaries": 2})
    seen = Weights()
    _, kasmina, _ = digits_run(
        Script({0: [plant(A)], 2: [tell(CommandKind.CULL, A)], 3: [back]}),
        epochs=5,
        callbacks=[seen, Governor()],
        **GPU,
    )
    assert [e.restored for e in listen(kasmina) if isinstance(e, Intervention)] == [1]
    assert same(seen.by_epoch[3], seen.by_epoch[1])
