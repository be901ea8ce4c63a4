"""Parameter groups of slots: made once, empty; filled as seeds come, emptied as they go."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adagrad, Optimizer

from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import UnsupportedOptimizer

log = logging.getLogger(__name__)

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


def add_slot_groups(optimizer: Optimizer, slots: Mapping[str, SeedSlot]) -> list[int]:
    """Append four empty groups for each slot, with the options of the group of its own parameters.

    A slot whose own parameters lie in several groups takes the group that holds most of them, one
    whose parameters lie in none takes the first. A group with a learning rate of 0 trains nothing
    and is passed over where another is there: the seeds of a backbone that is frozen in this way
    train with the options of the first group that trains.

    Parameters of branches that are there already leave the optimiser's own groups.

    Optimiser state is matched by position in checkpoints: call this once, before schedulers are
    built, and never change the layout afterwards.

    Returns:
        For every group of the optimiser, in order, the number of the one whose options it has; a
        group of the module's own has its own.
    """
    grown = {id(p) for slot in slots.values() for p in slot.branch_parameters()}
    own = list(optimizer.param_groups)
    for group in own:
        group["params"] = [p for p in group["params"] if id(p) not in grown]
    follows = list(range(len(own)))
    for path, slot in slots.items():
        number = _group_of(slot, own)
        for owner in _MATTERS:
            for decay in _DECAYS:
                options = _options(own[number])
                options["name"] = group_name(owner, path, decay)
                options[PLANTED_AT] = None
                if decay == "no_decay" and "weight_decay" in options:
                    options["weight_decay"] = 0.0
                optimizer.add_param_group({"params": [], **options})
                follows.append(number)
    return follows


def remove_slot_groups(optimizer: Optimizer) -> None:
    """Take the groups of :func:`add_slot_groups` away again, as long as they are empty."""
    own = [group for group in optimizer.param_groups if PLANTED_AT not in group]
    optimizer.param_groups[:] = own


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a group for another; a learning rate that is a tensor is the other's own."""
    options = {k: v for k, v in group.items() if k not in ("params", "name")}
    if "param_names" in options:
        options["param_names"] = []
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in options.items()}


def _group_of(slot: SeedSlot, groups: Sequence[Mapping[str, Any]]) -> int:
    """The number of the group whose options the slot's seeds take."""
    grown = {id(p) for p in slot.branch_parameters()}
    wanted = {id(p): p.numel() for p in slot.base_layer.parameters() if id(p) not in grown}
    held = [sum(wanted.get(id(p), 0) for p in group["params"]) for group in groups]
    trains = [float(group.get("lr", 1.0)) != 0.0 for group in groups]
    rated = held if not any(trains) else [h if t else -1 for h, t in zip(held, trains, strict=True)]
    number = max(range(len(groups)), key=rated.__getitem__)
    if held[number] != sum(wanted.values()) or not held[number]:
        log.info(
            "slot %r: parameter group %d of %d holds %d of its %d parameters; its seeds take that "
            "group's options",
            slot.path,
            number,
            len(groups),
            held[number],
            sum(wanted.values()),
        )
    return number


def has_slot_groups(optimizer: Optimizer) -> bool:
    """Whether :func:`add_slot_groups` was called on it."""
    return any(PLANTED_AT in group for group in optimizer.param_groups)


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
        self._all: list[dict[str, Any]] | None = None

    def hide_empty(self) -> None:
        """Show the optimiser only groups that hold something, until :meth:`show_empty`.

        Its own loop over empty groups would cost more than everything that is done for dormant
        slots. Whoever looks between here and the end of the step sees the shorter list, so this
        comes last before it.
        """
        filled = [group for group in self.optimizer.param_groups if group["params"]]
        if filled and self._all is None:
            self._all, self.optimizer.param_groups = self.optimizer.param_groups, filled

    def show_empty(self) -> None:
        """All groups are there again."""
        if self._all is not None:
            self.optimizer.param_groups, self._all = self._all, None

    def join(self, path: str, seed: nn.Module, step: int) -> None:
        """Every parameter of a seed begins to train."""
        for decay, parameters in _split(seed).items():
            group = self._group("seed", path, decay)
            group["params"] = parameters
            group[PLANTED_AT] = step
            _begin_state(self.optimizer, group)

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

    def unfossilize(self, path: str, fossil: nn.Module) -> None:
        """A fossil's parameters move back to the seeds' groups with their optimiser state."""
        for decay, parameters in _split(fossil).items():
            source = self._group("fossil", path, decay)
            moved = {id(parameter) for parameter in parameters}
            source["params"] = [p for p in source["params"] if id(p) not in moved]
            self._group("seed", path, decay)["params"] = parameters

    def refill(self, slots: Mapping[str, SeedSlot]) -> None:
        """Fill the groups from slots that were rebuilt, before optimiser state is restored."""
        for path, slot in slots.items():
            self.leave(path)
            fossils = _split(slot.fossils)
            for decay in _DECAYS:
                group = self._group("fossil", path, decay)
                group["params"] = fossils[decay]
                _begin_state(self.optimizer, group)
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
        """The optimiser as it would be without live seeds (fossils stay).

        Their gradients are set aside, too, for those who go by the network's parameters.
        """
        hidden = [
            (group, group["params"])
            for group in self.optimizer.param_groups
            if group["params"] and str(group.get("name", "")).startswith("seed:")
        ]
        gradients = [(p, p.grad) for _, parameters in hidden for p in parameters]
        for group, _ in hidden:
            group["params"] = []
        for parameter, _ in gradients:
            parameter.grad = None
        try:
            yield
        finally:
            for group, parameters in hidden:
                group["params"] = parameters
            for parameter, gradient in gradients:
                parameter.grad = gradient


def _begin_state(optimizer: Optimizer, group: Mapping[str, Any]) -> None:
    """Adagrad makes state at its creation (torch 2.8: nowhere else), others when it is needed."""
    if not isinstance(optimizer, Adagrad):
        return
    for parameter in group["params"]:
        if not optimizer.state[parameter]:
            total = torch.full_like(parameter, group["initial_accumulator_value"])
            optimizer.state[parameter] = {"step": torch.tensor(0.0), "sum": total.detach()}


def _split(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Matrices and kernels decay; biases, norms and scales do not."""
    split: dict[str, list[nn.Parameter]] = {decay: [] for decay in _DECAYS}
    for parameter in module.parameters():
        split["decay" if parameter.ndim >= 2 else "no_decay"].append(parameter)
    return split
