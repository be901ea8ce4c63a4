"""The parts of a run: data, module, callbacks, loggers."""

import logging
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf

from esper_lightning import karn
from esper_lightning.callbacks import (
    GrowthFigure,
    Journal,
    LiveTable,
    LoggerEvents,
    Summary,
    TrainingFlops,
)
from esper_lightning.conf import record
from esper_lightning.conf.instantiate import build, build_all, build_own
from esper_lightning.kasmina import probing
from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria import Tolaria

log = logging.getLogger(__name__)

Data = TypeVar("Data")
Module = TypeVar("Module")

WATCHING_GROWTH = (GrowthFigure, Journal, LiveTable, LoggerEvents, Summary)
"""Callbacks that need a Kasmina beside them."""


def register_blueprints(cfg: DictConfig) -> None:
    """Add the blueprints that ``blueprints`` names to the catalogue.

    Raises:
        InvalidArgument: it is no list, or an item does not make a blueprint with a name and an id
            of its own.
    """
    given = cfg.get("blueprints")
    if given is not None and not isinstance(given, ListConfig):
        raise InvalidArgument(
            f"blueprints must be a list, such as blueprints=[my_project.MINE], got {given!r}"
        )
    for index, node in enumerate(given or ()):
        karn.register(build_own(node, f"blueprints[{index}]", karn.Blueprint))


def build_data(cfg: DictConfig, kind: type[Data]) -> Data:
    """The group ``data``, or the user's own data module, which must be a ``kind``."""
    if cfg.datamodule is None:
        data: Data = build(cfg.data, "data")
        return data
    return build_own(cfg.datamodule, "datamodule", kind)


def build_module(cfg: DictConfig, data: Any, kind: type[Module]) -> tuple[Module | Tolaria, Any]:
    """Tolaria with a host for the data's shapes, or the user's own module, a ``kind``.

    Either gets a few real inputs, if the data can tell and its ``forward`` takes them, to learn the
    shapes of slots from; without, the first batch tells.

    Returns:
        The module, and the network in it to which slot paths are relative.

    Raises:
        InvalidArgument: Tolaria needs what a data module of the user's own does not tell, or slots
            are to be listed and nothing tells what the inputs of the user's own module are.
    """
    if cfg.module is not None:
        own: Any = build_own(cfg.module, "module", kind)
        if own.example_input_array is None and hasattr(data, "example_input"):
            example = data.example_input()
            own.example_input_array = example if _takes(own, example) else None
        if cfg.list_slots and own.example_input_array is None:
            raise InvalidArgument(
                f"list_slots=true runs the forward of {type(own).__name__} on one batch of inputs: "
                f"define forward, and set self.example_input_array to what it takes"
            )
        return own, own
    missing = [
        name for name in ("input_shape", "num_classes", "example_input") if not hasattr(data, name)
    ]
    if missing:
        raise InvalidArgument(
            f"{type(data).__name__} does not tell {', '.join(missing)}, which Tolaria needs to "
            f"make a host; derive it from esper_lightning.tolaria.SplitDataModule, or name a "
            f"module of your own: module=my_project.Classifier"
        )
    shapes = {"input_shape": data.input_shape, "num_classes": data.num_classes}
    host = build(cfg.host, "host", **shapes)
    _check_not_null(cfg, "tolaria.optimizer", "tolaria.schedule", "tolaria.newcomer")
    model: Any = build(cfg.tolaria, "tolaria", host=host, num_classes=data.num_classes)
    if isinstance(model, Tolaria):
        model.make_optimizer()  # refuses now what it would refuse when the fit begins
    model.example_input_array = data.example_input()
    return model, model.host


def _takes(module: Any, inputs: Any) -> bool:
    """Whether a module of the user's own can be called with inputs alone; it need not.

    It may have no ``forward``, or one that takes the labels as well, or works in a step only.
    """
    with probing(module):
        try:
            module(inputs)
        except Exception as error:  # pylint: disable=broad-exception-caught
            # Foreign code, which may raise anything.
            told = f"{type(error).__name__}: {error}"
            log.info("the shapes of slots come with the first batch: forward says %s", told)
            return False
    return True


def build_callbacks(cfg: DictConfig, kind: type) -> list[Any]:
    """What grows, and whatever the group ``callbacks`` names, each a ``kind``.

    Without Kasmina nothing grows: callbacks that watch growth are left out, and the training FLOPs,
    which Kasmina logs otherwise, are counted by ``TrainingFlops``.
    """
    given = build_all(cfg.get("callbacks"), "callbacks", kind)
    for summary in (item for item in given if isinstance(item, Summary)):
        summary.config_digest = record.digest(cfg)
    if cfg.get("kasmina"):
        _check_not_null(cfg, "kasmina.rules", "governor.rules", "tamiyo.policy")
        _check_not_null(cfg, "tamiyo.policy.budget")
        names = ("kasmina", "governor", "tamiyo", "tezzeret", "oona", "nissa")
        growing = {name: cfg.get(name) for name in names}
        return [build(node, name) for name, node in growing.items() if node] + given
    others = [item for item in given if not isinstance(item, WATCHING_GROWTH)]
    counted = any(isinstance(item, TrainingFlops) for item in others)
    return others if counted else [TrainingFlops(), *others]


def build_loggers(cfg: DictConfig, kind: type) -> list[Any]:
    """Whatever the group ``logger`` names, each a ``kind``."""
    return build_all(cfg.get("logger"), "logger", kind)


def build_trainer(cfg: DictConfig, *, callbacks: list[Any], loggers: list[Any]) -> Any:
    """The Trainer that all parts are handed to."""
    return build(cfg.trainer, "trainer", callbacks=callbacks, logger=loggers or False)


def _check_not_null(cfg: DictConfig, *keys: str) -> None:
    """Refuse null for a part that has no meaning of "none".

    In code None takes a default there; in a configuration, whose defaults are written out, null
    would take other numbers than those that are shown.
    """
    for key in keys:
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        if OmegaConf.is_dict(node) and name in node and node[name] is None:
            raise InvalidArgument(
                f"{key}=null: there is no run without; change its values ({key}.name=value), or "
                f"leave the key out for the defaults of the code (~{key})"
            )
