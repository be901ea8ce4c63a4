"""Giving an optimiser that someone else creates the slots' parameter groups."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim import LBFGS, Optimizer, SparseAdam

from esper_lightning.kasmina.parameter_groups import add_slot_groups, remove_slot_groups
from esper_lightning.kasmina.schedulers import entries_for_slots
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import UnsupportedOptimizer

_REFUSED = {
    "LBFGS": "it holds one flat parameter vector, whose history cannot take new parameters",
    "SparseAdam": "it takes only sparse gradients, which branches do not have",
    "Muon": "it takes only matrices, and branches have biases and scales",
}


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuse optimisers under which a network cannot grow.

    Raises:
        UnsupportedOptimizer: with the reason.
    """
    name = type(optimizer).__name__
    if isinstance(optimizer, (LBFGS, SparseAdam)) or name in _REFUSED:
        why = _REFUSED.get(name, "it cannot take new parameters")
        raise UnsupportedOptimizer(
            f"{name} does not work with growth: {why}; use AdamW, Adam, SGD, NAdam, RAdam, RMSprop "
            f"or Adagrad"
        )


@contextmanager
def slot_groups_in_new_optimizers(slots: Mapping[str, SeedSlot]) -> Iterator[None]:
    """Every optimiser that is created inside has the slots' empty groups from its birth.

    So a scheduler that is built right after it, as in most ``configure_optimizers``, sees all the
    groups it will ever have: groups that are added later break LambdaLR, OneCycleLR, SequentialLR
    and others. A scheduler that is given one entry for each of the module's own groups takes them
    for the slots' groups too. The module's own groups come first, those included that it adds to
    an optimiser that is there.

    Raises:
        UnsupportedOptimizer: one is created that cannot grow.
        InvalidArgument: a scheduler is given a list that fits neither the module's own groups nor
            all of them.
    """
    create, add = Optimizer.__init__, Optimizer.add_param_group
    born: dict[Optimizer, list[int]] = {}

    def init(self: Optimizer, params: Any, defaults: dict[str, Any]) -> None:
        check_optimizer(self)
        create(self, params, defaults)
        born[self] = add_slot_groups(self, slots)

    def add_own(self: Optimizer, param_group: dict[str, Any]) -> None:
        known = born.pop(self, None)
        if known is None:
            add(self, param_group)
            return
        remove_slot_groups(self)
        add(self, param_group)
        born[self] = add_slot_groups(self, slots)

    setattr(Optimizer, "__init__", init)  # noqa: B010
    setattr(Optimizer, "add_param_group", add_own)  # noqa: B010
    try:
        with entries_for_slots(born.get):
            yield
    finally:
        setattr(Optimizer, "__init__", create)  # noqa: B010
        setattr(Optimizer, "add_param_group", add)  # noqa: B010
