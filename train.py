"""Train a network that grows: compose the configuration, fit, report.

python train.py --help lists the groups; docs/configuration.md explains them.
"""

import logging
import warnings

import hydra
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig
from rich.console import Console

from esper_lightning import karn
from esper_lightning.callbacks import Kasmina, Summary
from esper_lightning.callbacks.batches import run_example
from esper_lightning.callbacks.checkpoints import best_checkpoint
from esper_lightning.callbacks.continuation import Continuation
from esper_lightning.callbacks.logger_entries import log_hyperparameters, logging_to
from esper_lightning.callbacks.requirements import check_supported
from esper_lightning.conf import parts, record, request
from esper_lightning.kasmina import possible_slots
from esper_lightning.nissa.report import summary_text
from esper_lightning.nissa.slot_listing import slot_listing


def run(
    cfg: DictConfig, trainer: Trainer, model: LightningModule, data: LightningDataModule
) -> dict[str, float]:
    """Fit, then evaluate what ``train``, ``test``, ``evaluate`` and ``ckpt_path`` ask for."""
    results: dict[str, float] = {}
    path = cfg.ckpt_path
    if cfg.train:
        trainer.fit(model, datamodule=data, ckpt_path=path)
        results = {name: float(value) for name, value in trainer.callback_metrics.items()}
        path = best_checkpoint(trainer) if cfg.evaluate == "best" else None
    options = {"datamodule": data, "ckpt_path": path, "verbose": False}
    if is_overridden("validation_step", model) and is_overridden("val_dataloader", data):
        results |= next(iter(trainer.validate(model, **options)), {})
    if cfg.test and is_overridden("test_step", model) and is_overridden("test_dataloader", data):
        results |= next(iter(trainer.test(model, **options)), {})
    return results


def train(cfg: DictConfig) -> dict[str, float]:
    """One run; its last metrics on train and validation and, with ``test=true``, on test."""
    is_first = getattr(rank_zero_only, "rank", 0) == 0
    console = Console(quiet=not is_first)
    if not is_first:
        logging.getLogger("esper_lightning").setLevel(logging.ERROR)
    request.check(cfg, ModelCheckpoint)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    seed_everything(cfg.seed, workers=True, verbose=False)
    parts.register_blueprints(cfg)
    data = parts.build_data(cfg, LightningDataModule)
    model, network = parts.build_module(cfg, data, LightningModule)
    if cfg.list_slots:
        found = possible_slots(network, lambda: run_example(model))
        fitting = {s.path: [b.name for b in karn.fitting(s.shape)] for s in found}
        console.print(slot_listing(found, fitting))
        return {}
    if cfg.print_config:
        console.print(record.tree(cfg))
    if is_first:
        record.save(cfg, cfg.paths.output_dir)
    host_parameters = sum(parameter.numel() for parameter in network.parameters())
    callbacks = [*parts.build_callbacks(cfg, Callback), continuation := Continuation(cfg.ckpt_path)]
    with logging_to(parts.build_loggers(cfg, Logger)) as loggers:
        log_hyperparameters(loggers, record.hyperparameters(cfg, host_parameters=host_parameters))
        trainer: Trainer = parts.build_trainer(cfg, callbacks=callbacks, loggers=loggers)
        request.check_processes(trainer)
        if any(isinstance(callback, Kasmina) for callback in callbacks):
            check_supported(trainer, model)  # before processes are started
        with continuation.told(trainer, console.print):
            results = run(cfg, trainer, model, data)
    latest = next((item.latest for item in callbacks if isinstance(item, Summary)), None)
    console.print(record.metrics(results) if latest is None else summary_text(latest))
    console.print(f"[dim]files are in {trainer.default_root_dir}[/dim]")
    return results


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Entry of the command line; what it returns is for sweepers."""
    # Lightning 2.6 with torch 2.13, and a hint that does not hold for data in memory.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    return request.objective(train(cfg), cfg.optimized_metric)


if __name__ == "__main__":
    main()
