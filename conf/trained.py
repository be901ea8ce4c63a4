"""The network of a finished run, from what the run left behind."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf

from esper_lightning import karn
from esper_lightning.conf import parts
from esper_lightning.conf.record import CONFIG_NAME
from esper_lightning.kasmina import regraft
from esper_lightning.leyline import InvalidArgument

Data = TypeVar("Data")
Module = TypeVar("Module")


def config_of(checkpoint: Path) -> Path:
    """The ``config.yaml`` beside a checkpoint, or in a folder around it.

    Raises:
        InvalidArgument: there is none.
    """
    for folder in checkpoint.resolve().parents[:3]:
        if (folder / CONFIG_NAME).is_file():
            return folder / CONFIG_NAME
    raise InvalidArgument(
        f"no {CONFIG_NAME} beside {checkpoint} or in the two folders around it; give that of the "
        f"run with --config"
    )


def load(
    checkpoint: Path, config: Path, *, data_kind: type[Data], module_kind: type[Module]
) -> tuple[Any, Any]:
    """A run's module with the weights of a checkpoint, on the CPU and in eval mode.

    Args:
        checkpoint: of the run.
        config: its ``config.yaml``; the data that it names are read, for their shapes.
        data_kind: what a data module of the user's own must be.
        module_kind: what a module of the user's own must be.

    Returns:
        The module, and the network in it that grew.

    Raises:
        InvalidArgument: a file is not there, or not a checkpoint.
    """
    for path in (checkpoint, config):
        if not path.is_file():
            raise InvalidArgument(f"no such file: {path}")
    cfg: Any = OmegaConf.load(config)
    parts.register_blueprints(cfg)
    module, network = parts.build_module(cfg, parts.build_data(cfg, data_kind), module_kind)
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise InvalidArgument(f"{checkpoint} cannot be read as a checkpoint: {error}") from error
    if not isinstance(saved, dict) or "state_dict" not in saved:
        raise InvalidArgument(f"{checkpoint} is not a checkpoint of Lightning: no state_dict in it")
    made: Any = module
    regraft(made, saved["state_dict"], build=karn.build)
    made.on_load_checkpoint(saved)
    made.load_state_dict(saved["state_dict"], strict=made.strict_loading)
    return made.eval(), network
