"""A transformer that reads a text grows, and goes on within an epoch as if nothing had happened."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from runs import FREE, Script, listen, moves, plant, same, tell, weights
from tolaria.text_files import tiny, write_text

from esper_lightning.callbacks import Kasmina, Tamiyo
from esper_lightning.leyline import CommandKind, Incubation
from esper_lightning.tolaria import GPT, Tolaria

pytestmark = pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")

SLOTS = ["blocks.0.mlp", "blocks.1.mlp"]
LAST = {Incubation.DIRECT: 4, Incubation.STRAIGHT_THROUGH: 6}
"""The boundary at which what was planted at the end of epoch 0 becomes permanent."""


class SaveWithin(Callback):
    """Saves after three batches of one epoch."""

    def __init__(self, epoch: int, path: Path) -> None:
        self.epoch, self.path = epoch, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 2):
            trainer.save_checkpoint(self.path)


class Losses(Callback):
    """Keeps the loss on val of every epoch."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.found.append(float(trainer.callback_metrics["val/loss"]))


def fit(folder: Path, incubation: Incubation, *callbacks: Callback, resume: Path | None = None):
    """Plants a wider MLP and an attention, keeps both."""
    write_text(folder)
    seed_everything(0 if resume is None else 99, verbose=False)
    data = tiny(folder, seed=1)
    host = GPT(
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        width=8,
        num_heads=2,
        mlp_ratio=1.0,
        dropout=0.1,
    )
    lines = {
        0: [plant(SLOTS[0], "parallel_mlp"), plant(SLOTS[1], "token_attention")],
        LAST[incubation]: [tell(CommandKind.FOSSILIZE, slot) for slot in SLOTS],
    }
    kasmina = Kasmina(root="host", slots=SLOTS, incubation=incubation, rules=FREE)
    events = listen(kasmina)
    trainer = Trainer(
        max_epochs=LAST[incubation] + 2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Tamiyo(risk=False, policy=Script(lines)), kasmina, *callbacks],
    )
    model = Tolaria(host=host, num_classes=data.num_classes)
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    return model, events


@pytest.mark.parametrize("incubation", list(LAST), ids=lambda each: each.value)
def test_it_grows_learns_and_resumes_within_an_epoch(tmp_path: Path, incubation: Incubation):
    losses = Losses()
    middle = tmp_path / "middle.ckpt"
    straight, events = fit(tmp_path, incubation, losses, SaveWithin(2, middle))
    for slot in SLOTS:
        assert "FOSSILIZED" in moves(events, slot)
        assert ("TRAINING" in moves(events, slot)) == (incubation is not Incubation.DIRECT)
    grown = [name for name in straight.state_dict() if ".fossils." in name]
    assert any("blocks.0.mlp" in name for name in grown)
    assert any("query_key_value" in name for name in grown)
    assert losses.found[-1] < losses.found[0] - 0.5, losses.found

    resumed, _ = fit(tmp_path, incubation, resume=middle)
    assert same(weights(resumed), weights(straight))

    x = torch.zeros(1, 16, dtype=torch.int64)
    other = x.clone()
    other[:, 9:] = 5
    before, after = straight.eval()(x), straight(other)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=1e-5)
    assert not torch.allclose(before[:, 9:], after[:, 9:])
