"""Short real runs in folders, for tests of what is made of them."""

from pathlib import Path

from lightning.pytorch import Trainer, seed_everything

from esper_lightning.callbacks import Journal, Kasmina, Summary, Tamiyo
from esper_lightning.tamiyo import Policy
from esper_lightning.tolaria import CNN, Digits, Tolaria


def train(folder: Path, policy: Policy, *, seed: int = 0, epochs: int = 10) -> Path:
    """A run of a small network on some digits; with the same seed a twin of any other."""
    seed_everything(seed, verbose=False)
    data = Digits(subset=300)
    host = CNN(input_shape=data.input_shape, num_classes=data.num_classes)
    model = Tolaria(host=host, num_classes=data.num_classes)
    model.example_input_array = data.example_input()
    Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Kasmina(root="host"), Tamiyo(policy=policy), Journal(), Summary()],
    ).fit(model, datamodule=data)
    return folder
