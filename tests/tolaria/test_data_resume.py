"""Data order and learning rates in a real Trainer, straight and resumed."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from esper_lightning.tolaria.data import EpochShuffle, TensorDataModule
from esper_lightning.tolaria.hosts import MLP
from esper_lightning.tolaria.optimizer import host_groups
from esper_lightning.tolaria.schedule import GroupwiseLR

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # Lightning 2.6 flattens loaders with an interface that torch 2.13 is leaving behind.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]

NUM, EPOCHS = 20, 4


class Recorder(LightningModule):
    """Trains an MLP and keeps what it saw and how fast it learned."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.host = MLP(input_shape=(1,), num_classes=2)
        self.seen: dict[int, list[int]] = {}
        self.rates: list[float] = []

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        self.seen.setdefault(self.current_epoch, []).extend(inputs.flatten().int().tolist())
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return nn.functional.cross_entropy(self.host(inputs), labels)

    def validation_step(self, batch, batch_idx):
        self.host(batch[0])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(host_groups(self.host, weight_decay=0.01), lr=0.01)
        total_steps = self.trainer.estimated_stepping_batches
        scheduler = GroupwiseLR(optimizer, total_steps=total_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class SaveAt(Callback):
    """Saves a checkpoint at the end of one epoch."""

    def __init__(self, epoch: int, path) -> None:
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def fit(*callbacks, num_workers: int, resume=None, accumulate: int = 1) -> Recorder:
    model = Recorder()
    numbers = torch.arange(NUM).float().reshape(-1, 1)
    data = TensorDataModule(
        train=(numbers, torch.arange(NUM) % 2),
        val=(torch.rand(4, 1), torch.arange(4) % 2),
        test=(torch.rand(4, 1), torch.arange(4) % 2),
        batch_size=8,
        seed=5,
        num_workers=num_workers,
    )
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
    )
    if resume is not None:
        torch.load(resume, weights_only=True)  # nothing in it is code
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    return model


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_sees_the_same_batches_and_ends_with_the_same_weights(tmp_path, num_workers):
    checkpoint = tmp_path / "second.ckpt"
    straight = fit(SaveAt(1, checkpoint), num_workers=num_workers)
    sampler, expected = EpochShuffle(NUM, seed=5), {}
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        expected[epoch] = list(sampler)
    assert straight.seen == expected
    resumed = fit(num_workers=num_workers, resume=checkpoint)
    assert resumed.seen == {epoch: expected[epoch] for epoch in (2, 3)}
    assert resumed.rates == straight.rates[len(straight.rates) // 2 :]
    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_rates_move_with_optimiser_steps_under_accumulation():
    model = fit(num_workers=0, accumulate=3)
    per_step = model.rates[::3]
    assert len(per_step) == EPOCHS
    assert model.rates == [rate for rate in per_step for _ in range(3)]
    policy = GroupwiseLR(
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.01), total_steps=EPOCHS
    )
    expected = []
    for _ in range(EPOCHS):
        expected += policy.get_last_lr()
        policy.optimizer.step()
        policy.step()
    assert per_step == expected
