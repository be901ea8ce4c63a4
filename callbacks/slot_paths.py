"""Where a module's network can grow."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule
from torch import nn

from esper_lightning import karn
from esper_lightning.callbacks.batches import run_example
from esper_lightning.kasmina import auto_slots, probing
from esper_lightning.leyline import InvalidArgument, SlotShape, UnknownSlot
from esper_lightning.tolaria import Tolaria


def network_of(module: LightningModule, root: str | None) -> nn.Module:
    """The submodule to which slot paths are relative; None takes the host of a Tolaria, or all.

    Raises:
        UnknownSlot: there is no such submodule.
    """
    if root is None:
        root = "host" if isinstance(module, Tolaria) else ""
    if root and root not in dict(module.named_modules()):
        there = [name for name, _ in module.named_children()]
        raise UnknownSlot(f"root {root!r} is not a submodule; there are {there}")
    return module.get_submodule(root)


def slot_paths(
    module: LightningModule, network: nn.Module, slots: str | Sequence[str]
) -> list[str]:
    """The paths that are asked for, or the blocks of the network for ``auto``.

    Raises:
        InvalidArgument: ``auto`` needs inputs, and the module has none.
    """
    if not isinstance(slots, str):
        return list(slots)
    if module.example_input_array is None:
        raise InvalidArgument(
            "slots='auto' runs the module's forward on one batch of inputs to find the network's "
            "blocks: set self.example_input_array in the module, or name the slots"
        )
    with probing(module):
        return auto_slots(network, lambda: run_example(module), fits=fits)


def fits(shape: SlotShape) -> bool:
    """Whether the catalogue has anything for a slot of this shape."""
    return bool(karn.fitting(shape))
