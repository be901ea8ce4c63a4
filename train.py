"""Train a network that grows: compose the configuration, fit, report.

python train.py --help lists the groups; conf/train.yaml is the entry.
"""

import hashlib
import warnings
from typing import Any

import hydra
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from esper_lightning import karn
from esper_lightning.callbacks import Summary
from esper_lightning.kasmina import possible_slots
from esper_lightning.nissa.report import summary_text
from esper_lightning.nissa.slot_listing import slot_listing
from esper_lightning.tolaria import SplitDataModule, Tolaria


def build_model(cfg: DictConfig, data: SplitDataModule) -> Tolaria:
    """Host and module for the data's shapes, with a few real inputs to learn slot shapes from."""
    host = instantiate(cfg.host, input_shape=data.input_shape, num_classes=data.num_classes)
    model: Tolaria = instantiate(cfg.tolaria, host=host, num_classes=data.num_classes)
    model.example_input_array = data.example_input()
    return model


def build_callbacks(cfg: DictConfig) -> list[Callback]:
    """Kasmina, Tamiyo and whatever the group ``callbacks`` names."""
    nodes = [cfg.kasmina, cfg.tamiyo, *(cfg.callbacks or {}).values()]
    return [instantiate(node, _convert_="all") for node in nodes if node is not None]


def config_digest(cfg: DictConfig) -> str:
    """SHA-256 of what was asked for, without where it is written to."""
    asked: Any = OmegaConf.to_container(cfg, resolve=False)
    asked.pop("paths", None)
    return hashlib.sha256(
        OmegaConf.to_yaml(OmegaConf.create(asked), sort_keys=True).encode()
    ).hexdigest()


def train(cfg: DictConfig) -> dict[str, float]:
    """One run.

    Returns:
        Metrics of the final network on validation and, with ``test=true``, on test.
    """
    console = Console()
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    seed_everything(cfg.seed, workers=True, verbose=False)
    data: SplitDataModule = instantiate(cfg.data)
    model = build_model(cfg, data)
    if cfg.list_slots:
        found = possible_slots(model.host, lambda: model(model.example_input_array))
        fitting = {s.path: [b.name for b in karn.fitting(s.shape)] for s in found}
        console.print(slot_listing(found, fitting))
        return {}
    callbacks = build_callbacks(cfg)
    loggers = [instantiate(node) for node in (cfg.logger or {}).values()]
    trainer: Trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers or False)
    summaries = [callback for callback in callbacks if isinstance(callback, Summary)]
    for summary in summaries:
        summary.config_digest = config_digest(cfg)
    trainer.fit(model, datamodule=data)
    results = dict(trainer.validate(model, datamodule=data, verbose=False)[0])
    if cfg.test:
        results |= trainer.test(model, datamodule=data, verbose=False)[0]
    for summary in summaries:
        if summary.latest is not None:
            console.print(summary_text(summary.latest))
    console.print(f"[dim]files are in {trainer.default_root_dir}[/dim]")
    return results


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Entry of the command line."""
    # Lightning 2.6 with torch 2.13, and a hint that does not hold for data in memory.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    train(cfg)


if __name__ == "__main__":
    main()
