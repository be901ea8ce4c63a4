"""Where a host can grow, and putting slots there."""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from esper_lightning.kasmina.branch import BuildBranch
from esper_lightning.kasmina.feature_maps import feature_map, probing
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import (
    InvalidArgument,
    PossibleSlot,
    SlotShape,
    SlotUnsuitable,
    UnknownSlot,
)

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def possible_slots(model: nn.Module, forward: Callable[[], object]) -> list[PossibleSlot]:
    """Every module of ``model`` that takes one feature map to another, once in a forward pass.

    A module that occurs at several paths is none; a slot stands for the module that it wraps.

    Args:
        model: the network, left as it was found.
        forward: runs one real forward pass of it.

    Returns:
        In the order of the modules. Suggested are the outermost modules below sequences and
        lists that hold a weight of two or more dimensions and do not make the final output: the
        blocks of a network rather than its whole trunk, its normalisations or its head.
    """
    everywhere = _host_modules(model)
    times = Counter(id(module) for module in everywhere.values())
    modules = {path: module for path, module in everywhere.items() if times[id(module)] == 1}
    calls: dict[str, list[tuple[object, object]]] = {path: [] for path in modules}
    handles = [
        module.register_forward_hook(_recorder(calls[path]), with_kwargs=True)
        for path, module in modules.items()
    ]
    try:
        with probing(model):
            final = forward()
    finally:
        for handle in handles:
            handle.remove()
    found: list[PossibleSlot] = []
    whole = {path for path, seen in calls.items() if any(_same(out, final) for _, out in seen)}
    blocks = set(_blocks(model, whole))
    for path, module in modules.items():
        shape = _shape(calls[path])
        if shape is None:
            continue
        base = module.base_layer if isinstance(module, SeedSlot) else module
        weighty = any(parameter.ndim >= 2 for parameter in base.parameters())
        found.append(
            PossibleSlot(
                path=path,
                module=type(base).__name__,
                shape=shape,
                num_parameters=sum(parameter.numel() for parameter in base.parameters()),
                suggested=path in blocks and weighty and path not in whole,
            )
        )
    return found


def auto_slots(
    model: nn.Module, forward: Callable[[], object], *, fits: Callable[[SlotShape], bool]
) -> list[str]:
    """Paths of the suggested slots of ``model`` for which ``fits`` is true.

    Raises:
        SlotUnsuitable: there are none; the text lists what could be named instead.
    """
    found = possible_slots(model, forward)
    paths = [slot.path for slot in found if slot.suggested and fits(slot.shape)]
    if not paths:
        listed = ", ".join(slot.path for slot in found) or "none"
        raise SlotUnsuitable(
            f"slots='auto' found no block that takes a feature map to a feature map and has a "
            f"blueprint that fits; possible slots to name: {listed}"
        )
    return paths


def insert_slots(
    model: nn.Module, paths: Sequence[str], *, build: BuildBranch
) -> dict[str, SeedSlot]:
    """Wrap the named modules of ``model`` in slots, in place. Modules that are slots stay.

    Args:
        model: the network.
        paths: module paths, as in ``model.get_submodule`` before there were slots, without
            repetition.
        build: how to build a named branch.

    Returns:
        The slots by path, in the order of ``paths``.

    Raises:
        UnknownSlot: a path is not there; the text lists those that are.
        SlotUnsuitable: a module that occurs at several paths.
        InvalidArgument: no path, a repeated one, or one that is not a string.

    All is checked before anything is changed.
    """
    is_list = isinstance(paths, Sequence) and not isinstance(paths, str)
    if not is_list or not paths or not all(isinstance(path, str) for path in paths):
        raise InvalidArgument(
            f"slots must be 'auto' or a list of module paths such as ['features.1'], got {paths!r}"
        )
    if len(set(paths)) != len(paths):
        raise InvalidArgument(f"slots names a path twice: {list(paths)}")
    everywhere = _host_modules(model)
    for path in paths:
        _check_path(path, everywhere)
    places = {id(module): place for place, module in model.named_modules()}
    slots: dict[str, SeedSlot] = {}
    # Inner modules first: wrapping an outer one changes the path of what is inside it.
    for path in sorted(paths, key=lambda path: path.count("."), reverse=True):
        module = everywhere[path]
        if not isinstance(module, SeedSlot):
            slot = SeedSlot(module, path=path, build=build)
            slot.train(module.training)
            model.set_submodule(places[id(module)], slot)
            module = slot
        module.path = path
        slots[path] = module
    return {path: slots[path] for path in paths}


def regraft(model: nn.Module, state_dict: Mapping[str, Any], *, build: BuildBranch) -> None:
    """Insert the slots that a grown network's ``state_dict`` has and ``model`` has not.

    Loading the ``state_dict`` afterwards rebuilds every branch.
    """
    ending = "._extra_state"
    places = [key.removesuffix(ending) for key in state_dict if key.endswith(ending)]
    grown = [place for place in places if f"{place}.alpha" in state_dict]
    there = _host_modules(model)
    paths = [path for path in (_host_path(place, grown) for place in grown) if path is not None]
    missing = [path for path in paths if not isinstance(there.get(path), SeedSlot)]
    if missing:
        insert_slots(model, missing, build=build)


def _host_path(place: str, slots: Iterable[str]) -> str | None:
    """The path that a module has without slots around it; None for what a slot adds or wraps."""
    for slot in sorted(slots, key=len, reverse=True):
        if place.startswith(f"{slot}."):
            inside = place.removeprefix(f"{slot}.")
            if not inside.startswith("base_layer."):
                return None
            place = f"{slot}.{inside.removeprefix('base_layer.')}"
    return place


def _host_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The host's own modules, by the paths that they have without slots."""
    modules = dict(model.named_modules(remove_duplicate=False))
    slots = [place for place, module in modules.items() if isinstance(module, SeedSlot)]
    paths = {place: _host_path(place, slots) for place in modules}
    return {path: modules[place] for place, path in paths.items() if path}


def _check_path(path: str, everywhere: Mapping[str, nn.Module]) -> None:
    if path not in everywhere:
        there = list(everywhere)
        close = difflib.get_close_matches(path, there, n=3)
        hint = f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else "."
        raise UnknownSlot(
            f"slot {path!r} is not a module of the host{hint} Modules: {', '.join(there)}"
        )
    others = [
        name for name, module in everywhere.items() if module is everywhere[path] and name != path
    ]
    if others:
        raise SlotUnsuitable(
            f"slot {path!r} is also the module {', '.join(repr(name) for name in others)}; "
            f"a module that is used in several places cannot be a slot, name its parent instead"
        )


def _blocks(model: nn.Module, whole: set[str], prefix: str = "") -> Iterable[str]:
    """Outermost modules below containers and below what makes the whole output (``whole``)."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        wrapper = path in whole and any(True for _ in child.children())
        if isinstance(child, _CONTAINERS) or (wrapper and not isinstance(child, SeedSlot)):
            yield from _blocks(child, whole, f"{path}.")
        else:
            yield path


def _recorder(into: list[tuple[object, object]]) -> Callable[..., None]:
    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        into.append((args[0] if args else next(iter(kwargs.values()), None), output))

    return record


def _shape(calls: list[tuple[object, object]]) -> SlotShape | None:
    if len(calls) != 1:
        return None
    taken, returned = calls[0]
    if not isinstance(taken, Tensor) or not isinstance(returned, Tensor):
        return None
    try:
        return SlotShape(input=feature_map(taken), output=feature_map(returned))
    except SlotUnsuitable:
        return None


def _same(output: object, final: object) -> bool:
    return isinstance(output, Tensor) and isinstance(final, Tensor) and output is final
