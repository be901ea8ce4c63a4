"""Schedulers that are given one entry for each parameter group, and the groups of slots."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CyclicLR,
    LambdaLR,
    MultiplicativeLR,
    OneCycleLR,
    ReduceLROnPlateau,
)
from torch.optim.swa_utils import SWALR

from esper_lightning.leyline import InvalidArgument

PER_GROUP: Mapping[type, tuple[str, ...]] = {
    LambdaLR: ("lr_lambda",),
    MultiplicativeLR: ("lr_lambda",),
    OneCycleLR: ("max_lr", "base_momentum", "max_momentum"),
    CyclicLR: ("base_lr", "max_lr", "base_momentum", "max_momentum"),
    ReduceLROnPlateau: ("min_lr",),
    SWALR: ("swa_lr",),
}
"""Arguments of torch's schedulers that may be a list with one entry for each parameter group."""

Sources = Callable[[Optimizer], Sequence[int] | None]
"""For every group of an optimiser the number of the module's own group that it follows."""


@contextmanager
def entries_for_slots(sources: Sources) -> Iterator[None]:
    """Lists with one entry for each of the module's own groups serve the groups of slots too.

    A slot's group takes the entry of the group that it follows. Lists that are as long as all
    groups together stay as they are.

    Args:
        sources: of an optimiser; None for one that has no groups of slots.

    Raises:
        InvalidArgument: a scheduler is created with a list of another length.
    """
    with ExitStack() as stack:
        for scheduler, names in PER_GROUP.items():
            stack.enter_context(_initialised_by(scheduler, _extending(scheduler, names, sources)))
        yield


@contextmanager
def _initialised_by(cls: type, init: Callable[..., None]) -> Iterator[None]:
    original = vars(cls)["__init__"]
    setattr(cls, "__init__", init)  # noqa: B010
    try:
        yield
    finally:
        setattr(cls, "__init__", original)  # noqa: B010


def _extending(cls: type, names: Sequence[str], sources: Sources) -> Callable[..., None]:
    original = vars(cls)["__init__"]
    signature = inspect.signature(original)

    def init(*args: Any, **kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs)
        optimizer = given.arguments["optimizer"]
        follows = sources(optimizer) if isinstance(optimizer, Optimizer) else None
        for name in names:
            entries = given.arguments.get(name)
            if follows is not None and isinstance(entries, list | tuple):
                given.arguments[name] = _extended(entries, follows, what=f"{cls.__name__} {name}")
        original(*given.args, **given.kwargs)

    return init


def _extended(entries: Sequence[Any], follows: Sequence[int], *, what: str) -> list[Any]:
    if len(entries) == len(follows):
        return list(entries)
    own = len(set(follows))
    if len(entries) != own:
        raise InvalidArgument(
            f"{what} has {len(entries)} entries, the module's optimiser has {own} parameter groups "
            f"of its own (and {len(follows) - own} of slots); give one entry for each of the "
            f"module's own groups"
        )
    return [entries[number] for number in follows]
