"""The slots of a configured network, without a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_module
from hydra.errors import HydraException

from esper_lightning.callbacks import Kasmina
from esper_lightning.callbacks.batches import run_example
from esper_lightning.callbacks.slot_paths import network_of, slot_paths
from esper_lightning.conf import parts
from esper_lightning.conf.instantiate import build
from esper_lightning.kasmina import possible_slots
from esper_lightning.leyline import Incubation, InvalidArgument, SlotShape

Data = TypeVar("Data")
Module = TypeVar("Module")


@dataclass(frozen=True)
class Slots:
    """Where a network can grow.

    Attributes:
        shapes: by the slot's path.
        batch: rows of a training batch; None where a data module of the user's own has no
            ``batch_size``.
        threads: of torch, in such a run; None leaves them to torch.
        apart: whether seeds begin with no gradient from them to the host.
    """

    shapes: dict[str, SlotShape]
    batch: int | None
    threads: int | None
    apart: bool


def slots_of(
    overrides: Sequence[str], *, data_kind: type[Data], module_kind: type[Module]
) -> Slots:
    """What ``python train.py`` with these overrides would make slots of.

    Args:
        overrides: as on its command line.
        data_kind: what a data module of the user's own must be.
        module_kind: what a module of the user's own must be.

    Raises:
        InvalidArgument: Hydra cannot compose them, or they make no network with slots.
    """
    try:
        with initialize_config_module("esper_lightning.conf", version_base="1.3"):
            cfg: Any = compose("train", [f"paths.root_dir={Path.cwd()}", *overrides])
    except HydraException as error:
        raise InvalidArgument(f"{' '.join(overrides)}: {error}") from error
    parts.register_blueprints(cfg)
    data: Any = parts.build_data(cfg, data_kind)
    module: Any = parts.build_module(cfg, data, module_kind)[0]
    kasmina = build(cfg.kasmina, "kasmina") if cfg.get("kasmina") else None
    if not isinstance(kasmina, Kasmina):
        raise InvalidArgument("there are no slots with kasmina=none")
    if module.example_input_array is None:
        raise InvalidArgument(
            f"{type(module).__name__} has no example_input_array, a batch of one, from which the "
            f"shapes at its slots could be told"
        )
    network: Any = network_of(module, kasmina.root)
    wanted = slot_paths(module, network, kasmina.slots)
    found = possible_slots(network, lambda: run_example(module))
    shapes = {slot.path: slot.shape for slot in found if slot.path in wanted}
    missing = [path for path in wanted if path not in shapes]
    if missing:
        raise InvalidArgument(f"{missing} cannot be slots; there are {[s.path for s in found]}")
    return Slots(
        shapes=shapes,
        batch=getattr(data, "batch_size", None),
        threads=cfg.threads,
        apart=kasmina.incubation is not Incubation.DIRECT,
    )
