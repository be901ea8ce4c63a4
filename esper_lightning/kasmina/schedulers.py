"""Schedulers that are given one entry for each parameter group, and the groups of slots."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CyclicLR,
    LambdaLR,
    LRScheduler,
    MultiplicativeLR,
    OneCycleLR,
    ReduceLROnPlateau,
)
from torch.optim.swa_utils import SWALR

from esper_lightning.leyline import EsperError, InvalidArgument

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
    groups together stay as they are. What schedulers that are not torch's do with lists is not
    known: they must be made for all groups.

    Args:
        sources: of an optimiser; None for one that has no groups of slots.

    Raises:
        InvalidArgument: a scheduler is created with a list of another length, or one of somebody's
            own does not give every group a rate.
    """
    with ExitStack() as stack:
        stack.enter_context(_initialised_by(LRScheduler, _counting(sources)))
        for kind, names in PER_GROUP.items():
            stack.enter_context(_initialised_by(kind, _extending(kind, names, sources)))
        try:
            yield
        except (ValueError, IndexError, AssertionError) as error:
            scheduler, optimizer = _failed_in(error.__traceback__)
            follows = sources(optimizer) if optimizer is not None else None
            if follows is None or isinstance(error, EsperError):
                raise
            raise _not_for_slots(
                scheduler, f"failed ({type(error).__name__}: {error})", follows
            ) from error


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


def _counting(sources: Sources) -> Callable[..., None]:
    """Construction of any scheduler, in which one of somebody's own is asked for all rates."""
    original = vars(LRScheduler)["__init__"]

    def init(self: LRScheduler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        follows = sources(optimizer) if isinstance(optimizer, Optimizer) else None
        if follows is None or _is_torchs(self):
            original(self, optimizer, *args, **kwargs)
            return
        ask = self.get_lr

        def get_lr() -> list[Any]:
            rates = list(ask())
            if len(rates) != len(follows):
                said = f"gave {len(rates)} rates for {len(follows)} groups"
                raise _not_for_slots(self, said, follows)
            return rates

        vars(self)["get_lr"] = get_lr
        try:
            original(self, optimizer, *args, **kwargs)
        finally:
            vars(self).pop("get_lr", None)

    return init


def _failed_in(trace: TracebackType | None) -> tuple[object, Optimizer | None]:
    """The scheduler of somebody's own in whose construction an error arose, and its optimiser."""
    while trace is not None:
        frame = trace.tb_frame
        scheduler = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and isinstance(scheduler, LRScheduler):
            given = [*frame.f_locals.values(), vars(scheduler).get("optimizer")]
            optimizer = next((each for each in given if isinstance(each, Optimizer)), None)
            return scheduler, None if _is_torchs(scheduler) else optimizer
        trace = trace.tb_next
    return None, None


def _is_torchs(scheduler: LRScheduler) -> bool:
    return type(scheduler).__module__.startswith("torch.")


def _not_for_slots(scheduler: object, said: str, follows: Sequence[int]) -> InvalidArgument:
    own = len(set(follows))
    return InvalidArgument(
        f"scheduler {type(scheduler).__name__} {said}; the optimiser has {len(follows) - own} "
        f"groups of slots after the {own} of the module's own, and a scheduler must give each "
        f"a rate: take their number from len(optimizer.param_groups) and give a slot's group an "
        f"entry of its own, or use LambdaLR with a function for each of the module's own groups, "
        f"which growth extends by itself"
    )


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
