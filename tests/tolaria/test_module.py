"""What Tolaria makes of logits and targets: one class for an input, or one for each position."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from text_files import tiny, write_text
from torch import nn

from esper_lightning.callbacks import TrainingFlops
from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria import GPT, MLP, TensorDataModule, Tolaria


class Fixed(nn.Module):
    """Returns the same logits, whatever comes in."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_the_loss_of_classes_is_cross_entropy_bit_for_bit():
    torch.manual_seed(0)
    host, x, y = MLP(input_shape=(5,), num_classes=3), torch.randn(7, 5), torch.arange(7) % 3
    expected = F.cross_entropy(host(x), y)
    gradients = torch.autograd.grad(expected, list(host.parameters()))
    loss = Tolaria(host=host, num_classes=3).loss((x, y))
    assert torch.equal(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, list(host.parameters())), gradients, strict=True
    ):
        assert torch.equal(ours, theirs)


def test_the_loss_of_a_sequence_is_in_nats_for_each_position():
    logits, y = torch.randn(2, 5, 3), torch.arange(10).reshape(2, 5) % 3
    by_hand = -sum(
        math.log(float(logits[b, t].softmax(0)[y[b, t]])) for b in range(2) for t in range(5)
    )
    loss = Tolaria(host=Fixed(logits), num_classes=3).loss((torch.zeros(2, 5), y))
    assert loss.item() == pytest.approx(by_hand / 10, rel=1e-5)


def test_what_is_logged_is_the_mean_over_positions_of_an_epoch(tmp_path):
    write_text(tmp_path)
    seed_everything(0, verbose=False)
    data = tiny(tmp_path)
    host = GPT(input_shape=(16,), num_classes=data.num_classes, width=8, num_heads=2)
    model = Tolaria(host=host, num_classes=data.num_classes)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    (found,) = trainer.validate(model, datamodule=data, verbose=False)
    val = data.splits.val
    with torch.no_grad():
        logits = host(val.inputs)
    expected = F.cross_entropy(logits.flatten(0, 1), val.labels.flatten())
    right = (logits.argmax(-1) == val.labels).float().mean()
    assert found["val/loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert found["val/acc"] == pytest.approx(right.item(), rel=1e-5)


def test_a_sample_is_a_window_and_costs_what_one_counts_by_hand(tmp_path):
    write_text(tmp_path)
    data = tiny(tmp_path)
    width, hidden, depth, context, classes = 8, 32, 2, 16, data.num_classes
    host = GPT(input_shape=(context,), num_classes=classes, width=width, num_heads=2)
    flops = TrainingFlops()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[flops],
    )
    trainer.fit(Tolaria(host=host, num_classes=classes), datamodule=data)
    layers = context * (depth * (4 * width**2 + 2 * width * hidden) + width * classes)
    attention = depth * context**2 * width
    window = 2 * (3 * layers + (2 + 5) * attention)
    assert flops.costs.num_samples == 2 * 48
    assert flops.costs.per_sample == window
    assert flops.costs.total == 2 * 48 * window


def test_other_tasks_of_positions_need_no_transformer():
    torch.manual_seed(0)
    x = torch.randn(96, 6, 4)
    y = x.argmax(-1)
    parts = {"train": (x[:64], y[:64]), "val": (x[64:80], y[64:80]), "test": (x[80:], y[80:])}
    model = Tolaria(host=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), num_classes=4)
    trainer = Trainer(
        max_epochs=20,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=TensorDataModule(**parts, batch_size=16))
    assert float(trainer.callback_metrics["val/acc"]) > 0.7


@pytest.mark.parametrize(
    ("logits", "targets"),
    [((2, 3, 5), (2, 5)), ((2, 5, 3), (2,)), ((2, 3, 4, 4), (2, 4, 4)), ((6,), (6,))],
)
def test_logits_and_targets_that_do_not_belong_together_are_refused(logits, targets):
    model = Tolaria(host=Fixed(torch.zeros(logits)), num_classes=3)
    with pytest.raises(InvalidArgument, match="host Fixed returned logits of shape .* for targets"):
        model.loss((torch.zeros(2), torch.zeros(targets, dtype=torch.int64)))
