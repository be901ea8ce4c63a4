"""A project of somebody who has never heard of Tolaria: written as text into a test's folder."""

SOURCE = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Numbers(LightningDataModule):
    def __init__(self, rows: int = 256):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(rows, 20, generator=generator)
        self.rows = TensorDataset(x, (x[:, :5] * x[:, 5:10]).argmax(dim=1))

    def train_dataloader(self):
        return DataLoader(self.rows, batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.rows, batch_size=128)

    test_dataloader = val_dataloader


class Classifier(LightningModule):
    def __init__(self, width: int = 4):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 4), nn.ReLU())
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Pixels(Classifier):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU())
        self.head = nn.Linear(4, 10)


class Forwardless(Pixels):
    forward = LightningModule.forward

    def loss(self, batch):
        return nn.functional.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))


class WholeBatch(Pixels):
    def forward(self, batch):
        inputs, labels = batch
        return nn.functional.cross_entropy(self.head(self.body(inputs)), labels)

    def training_step(self, batch, batch_idx):
        return self(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self(batch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self(batch))


class Needy(Classifier):
    def __init__(self, width: int, *, depth: int):
        super().__init__(width)


def broken():
    return 3
"""
