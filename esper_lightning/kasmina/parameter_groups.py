"""Parameter groups of slots: made once, empty; filled as seeds come, emptied as they go."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer

from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import UnsupportedOptimizer

PLANTED_AT = "planted_at"
"""Option of a seed's groups: the optimiser step at which it was planted, None while empty."""

_MATTERS = ("seed", "fossil")
_DECAYS = ("decay", "no_decay")


def group_name(owner: str, path: str, decay: str) -> str:
    """Name of one of a slot's four groups.

    >>> group_name("seed", "features.1", "decay")
    'seed:features.1/decay'
    """
    return f"{owner}:{path}/{decay}"


def add_slot_groups(optimizer: Optimizer, slots: Mapping[str, SeedSlot]) -> None:
    """Append four empty groups for each slot, with the options of the optimiser's first group.

    Parameters of branches that are there already leave the optimiser's own groups.

    Optimiser state is matched by position in checkpoints: call this once, before schedulers are
    built, and never change the layout afterwards.
    """
    grown = {id(p) for slot in slots.values() for p in slot.branch_parameters()}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in grown]
    template = {k: v for k, v in optimizer.param_groups[0].items() if k not in ("params", "name")}
    if "param_names" in template:
        template["param_names"] = []
    for path in slots:
        for owner in _MATTERS:
            for decay in _DECAYS:
                options: dict[str, Any] = dict(template, name=group_name(owner, path, decay))
                options[PLANTED_AT] = None
                if decay == "no_decay" and "weight_decay" in options:
                    options["weight_decay"] = 0.0
                optimizer.add_param_group({"params": [], **options})


class SlotGroups:
    """The groups of all slots in one optimiser.

    Args:
        optimizer: with the groups of :func:`add_slot_groups`.
        paths: of the slots.

    Raises:
        UnsupportedOptimizer: it has not got them.
    """

    def __init__(self, optimizer: Optimizer, paths: Iterable[str]) -> None:
        names = {group.get("name") for group in optimizer.param_groups}
        missing = [path for path in paths if group_name("seed", path, "decay") not in names]
        if missing:
            raise UnsupportedOptimizer(
                f"{type(optimizer).__name__} has no parameter groups for the slots {missing}; "
                f"create the optimiser inside configure_optimizers, where they are added"
            )
        self.optimizer = optimizer

    def join(self, path: str, seed: nn.Module, step: int) -> None:
        """Every parameter of a seed begins to train."""
        for decay, parameters in _split(seed).items():
            group = self._group("seed", path, decay)
            group["params"] = parameters
            group[PLANTED_AT] = step

    def leave(self, path: str) -> None:
        """A seed's parameters go, and their optimiser state with them."""
        for decay in _DECAYS:
            group = self._group("seed", path, decay)
            for parameter in group["params"]:
                self.optimizer.state.pop(parameter, None)
            group["params"], group[PLANTED_AT] = [], None

    def fossilize(self, path: str) -> None:
        """A seed's parameters move to the fossils' groups with their optimiser state."""
        for decay in _DECAYS:
            source = self._group("seed", path, decay)
            target = self._group("fossil", path, decay)
            target["params"] = [*target["params"], *source["params"]]
            source["params"], source[PLANTED_AT] = [], None

    def refill(self, slots: Mapping[str, SeedSlot]) -> None:
        """Fill the groups from slots that were rebuilt, before optimiser state is restored."""
        for path, slot in slots.items():
            fossils = _split(slot.fossils)
            for decay in _DECAYS:
                self._group("fossil", path, decay)["params"] = fossils[decay]
            if slot.seed is not None and slot.record.seed is not None and slot.trains:
                self.join(path, slot.seed, slot.record.seed.planted_step)

    def num_held(self, path: str) -> int:
        """Tensors of the slot's seed that the optimiser still holds."""
        return sum(len(self._group("seed", path, decay)["params"]) for decay in _DECAYS)

    def _group(self, owner: str, path: str, decay: str) -> dict[str, Any]:
        # Looked up anew each time: loading a state_dict replaces the optimiser's dictionaries.
        name = group_name(owner, path, decay)
        return next(group for group in self.optimizer.param_groups if group.get("name") == name)

    @contextmanager
    def without_seeds(self) -> Iterator[None]:
        """The optimiser as it would be without live seeds (fossils stay)."""
        hidden = [
            (group, group["params"])
            for group in self.optimizer.param_groups
            if str(group.get("name", "")).startswith("seed:")
        ]
        for group, _ in hidden:
            group["params"] = []
        try:
            yield
        finally:
            for group, parameters in hidden:
                group["params"] = parameters


def _split(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Matrices and kernels decay; biases, norms and scales do not."""
    split: dict[str, list[nn.Parameter]] = {decay: [] for decay in _DECAYS}
    for parameter in module.parameters():
        split["decay" if parameter.ndim >= 2 else "no_decay"].append(parameter)
    return split
