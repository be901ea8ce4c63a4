"""Paths of a host's own modules, as they are without slots, and which of them may be slots."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import InvalidArgument, SlotUnsuitable, UnknownSlot

_MOST_LISTED = 40


def host_path(place: str, slots: Iterable[str]) -> str | None:
    """The path that a module has without slots around it; None for what a slot adds or wraps."""
    for slot in sorted(slots, key=len, reverse=True):
        if place.startswith(f"{slot}."):
            inside = place.removeprefix(f"{slot}.")
            if not inside.startswith("base_layer."):
                return None
            place = f"{slot}.{inside.removeprefix('base_layer.')}"
    return place


def host_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The host's own modules, by the paths that they have without slots.

    A module that is shared is there by each of its paths; what computes a parametrised weight is
    not there.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    slots = [place for place, module in modules.items() if isinstance(module, SeedSlot)]
    left_out = _inside_parametrizations(model)
    paths = {
        place: host_path(place, slots)
        for place, module in modules.items()
        if id(module) not in left_out
    }
    return {path: modules[place] for place, path in paths.items() if path}


def distinct_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The host's own modules, each once, by the first of its paths."""
    first: dict[int, str] = {}
    modules = host_modules(model)
    for path, module in modules.items():
        first.setdefault(id(module), path)
    return {path: modules[path] for path in first.values()}


def check_slots(model: nn.Module, paths: Sequence[str]) -> None:
    """Whether all of ``paths`` may become slots of ``model``.

    Raises:
        InvalidArgument: no path, one that is not a string, or a module that is named twice.
        UnknownSlot: a path is not there; the text lists those that are.
        SlotUnsuitable: a module that cannot be called, or lies in what was compiled or scripted.
    """
    is_list = isinstance(paths, Sequence) and not isinstance(paths, str)
    if not is_list or not paths or not all(isinstance(path, str) for path in paths):
        raise InvalidArgument(
            f"slots must be 'auto' or a list of module paths such as ['features.1'], got {paths!r}"
        )
    if len(set(paths)) != len(paths):
        raise InvalidArgument(f"slots names a path twice: {list(paths)}")
    everywhere = host_modules(model)
    named: dict[int, str] = {}
    for path in paths:
        _check_known(path, everywhere)
        module = everywhere[path]
        other = named.setdefault(id(module), path)
        if other != path:
            raise InvalidArgument(
                f"slots names one module twice: {other!r} and {path!r} are the same "
                f"{type(module).__name__}; one of the two is enough, the slot is at both places"
            )
        if _has_no_forward(module):
            inside = [f"{path}.{name}" for name, _ in module.named_children()]
            raise SlotUnsuitable(
                f"slot {path!r} is a {type(module).__name__}, which is never called; "
                f"choose from what it holds: {', '.join(inside[:_MOST_LISTED]) or 'nothing'}"
            )
    check_eager(model, {path: everywhere[path] for path in paths})


def check_eager(model: nn.Module, slots: Mapping[str, nn.Module]) -> None:
    """Whether nothing around the slots was compiled or scripted.

    Growth changes what runs inside; a compiled module around it would be compiled anew at every
    change, and one that does not notice a change computes something else.

    Args:
        model: what may be compiled or hold what is.
        slots: by the path to name in the error.

    Raises:
        SlotUnsuitable: naming the module and what to compile instead.
    """
    wanted = {id(slot): path for path, slot in slots.items()}
    for place, module in model.named_modules(remove_duplicate=False):
        how = _made_rigid(module)
        inside = [wanted[id(m)] for m in module.modules() if m is not module and id(m) in wanted]
        if how is None or not inside:
            continue
        name = repr(place) if place else type(module).__name__
        raise SlotUnsuitable(
            f"slot {inside[0]!r} lies inside {name}, which was {how}; a network that grows can be "
            f"compiled only block by block: compile the modules that slots wrap, or parts "
            f"without slots, in place (block.compile()), not what is around slots"
        )


def _has_no_forward(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return False
    return type(module).forward is nn.Module.forward


def _check_known(path: str, everywhere: Mapping[str, nn.Module]) -> None:
    if path in everywhere:
        return
    there = list(everywhere)
    close = difflib.get_close_matches(path, there, n=3)
    hint = f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else "."
    raise UnknownSlot(
        f"slot {path!r} is not a module of the host{hint} Modules: {', '.join(there)}"
    )


def _made_rigid(module: nn.Module) -> str | None:
    """How the inside of a module was fixed, None where it was not."""
    if isinstance(module, torch.jit.ScriptModule):
        return "made a ScriptModule"
    if "_orig_mod" in module._modules:
        return "wrapped by torch.compile"
    if isinstance(module, SeedSlot) or module._compiled_call_impl is None:
        return None
    return "compiled in place"


def _inside_parametrizations(model: nn.Module) -> set[int]:
    """Modules that compute a weight (weight norm, spectral norm, ...) and carry no feature maps."""
    found: set[int] = set()
    for module in model.modules():
        for name, held in module.named_children():
            lists = list(held.children()) if name == "parametrizations" else []
            if lists and all(isinstance(each, ParametrizationList) for each in lists):
                found |= {id(inner) for inner in held.modules()}
    return found
