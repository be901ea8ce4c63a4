"""Where a host can grow, and putting slots there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from esper_lightning.kasmina.aliasing import passes_on, version_of
from esper_lightning.kasmina.branch import BuildBranch
from esper_lightning.kasmina.feature_maps import feature_map, first_argument, probing
from esper_lightning.kasmina.host_paths import (
    check_slots,
    distinct_modules,
    host_modules,
    host_path,
)
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import InvalidArgument, PossibleSlot, SlotShape, SlotUnsuitable

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def possible_slots(model: nn.Module, forward: Callable[[], object]) -> list[PossibleSlot]:
    """Every module of ``model`` that takes one feature map to another in a forward pass.

    A module at several paths is listed by the first; one that is called several times must map the
    same shape each time. A slot stands for the module that it wraps. What returns its own input or
    a view of it (``nn.Identity``, ``nn.Dropout``, ``nn.Flatten``) is left out.

    Args:
        model: the network, left as it was found.
        forward: runs one real forward pass of it.

    Returns:
        In the order of the modules. Suggested are the outermost modules below sequences and
        lists that hold a weight of two or more dimensions, are called once and do not make the
        final output: the blocks of a network rather than its whole trunk, its normalisations or
        its head.
    """
    modules = distinct_modules(model)
    calls: dict[str, list[tuple[object, object]]] = {path: [] for path in modules}
    handing_on: set[str] = set()
    handles = [
        handle
        for path, module in modules.items()
        for handle in _record(module, path, calls[path], handing_on)
    ]
    try:
        with probing(model):
            final = forward()
    finally:
        for handle in handles:
            handle.remove()
    found: list[PossibleSlot] = []
    shapes = {path: _shape(seen) for path, seen in calls.items()}
    whole = {
        id(modules[path])
        for path, seen in calls.items()
        if any(_makes(out, final) for _, out in seen)
    }
    others = {id(modules[path]) for path, shape in shapes.items() if shape is None}
    blocks = {id(block) for block in _blocks(model, whole | others)} - whole
    for path, module in modules.items():
        shape = shapes[path]
        if shape is None or path in handing_on:
            continue
        base = module.base_layer if isinstance(module, SeedSlot) else module
        weighty = any(parameter.ndim >= 2 for parameter in base.parameters())
        found.append(
            PossibleSlot(
                path=path,
                module=type(base).__name__,
                shape=shape,
                num_parameters=sum(parameter.numel() for parameter in base.parameters()),
                suggested=id(module) in blocks and weighty and len(calls[path]) == 1,
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
        The slots by path, in the order of ``paths``. A module that is shared is replaced by its
        slot wherever it is.

    Raises:
        UnknownSlot: a path is not there; the text lists those that are.
        SlotUnsuitable: a module that cannot be a slot.
        InvalidArgument: no path, a repeated one, or one that is not a string.

    All is checked before anything is changed.
    """
    check_slots(model, paths)
    everywhere = host_modules(model)
    slots: dict[str, SeedSlot] = {}
    # Inner modules first: wrapping an outer one changes the path of what is inside it.
    for path in sorted(paths, key=lambda path: path.count("."), reverse=True):
        module = everywhere[path]
        if not isinstance(module, SeedSlot):
            slot = SeedSlot(module, path=path, build=build)
            # Itself only: what is frozen in eval mode inside of the module stays so.
            slot.training = module.training
            slot.fossils.train(module.training)
            replace_everywhere(model, module, slot)
            module = slot
        module.path = path
        slots[path] = module
    return {path: slots[path] for path in paths}


def regraft(model: nn.Module, state_dict: Mapping[str, Any], *, build: BuildBranch) -> None:
    """Insert the slots that a grown network's ``state_dict`` has and ``model`` has not.

    Loading the ``state_dict`` afterwards rebuilds every branch.
    """
    there = host_modules(model)
    missing: dict[object, str] = {}
    for path in saved_slots(state_dict):
        if not isinstance(there.get(path), SeedSlot):
            # A shared module's record is in the state by each of its paths.
            missing.setdefault(id(there[path]) if path in there else path, path)
    if missing:
        insert_slots(model, list(missing.values()), build=build)


def saved_slots(state_dict: Mapping[str, Any]) -> list[str]:
    """The slots of a network by its ``state_dict``: paths as they are without slots.

    A slot that is at several places is named by each of them.
    """
    ending = "._extra_state"
    places = [key.removesuffix(ending) for key in state_dict if key.endswith(ending)]
    grown = [place for place in places if f"{place}.alpha" in state_dict]
    paths = (host_path(place, grown) for place in grown)
    return [path for path in paths if path is not None]


def replace_everywhere(model: nn.Module, module: nn.Module, by: nn.Module) -> None:
    """Put another module at every path of ``model`` at which ``module`` is."""
    places = [
        place for place, found in model.named_modules(remove_duplicate=False) if found is module
    ]
    for place in places:
        model.set_submodule(place, by)


def _blocks(model: nn.Module, wrappers: set[int]) -> Iterable[nn.Module]:
    """Outermost modules below containers and below ``wrappers``.

    Those make the whole output, or something else than a feature map.
    """
    for child in model.children():
        wrapper = id(child) in wrappers and any(True for _ in child.children())
        if isinstance(child, _CONTAINERS) or (wrapper and not isinstance(child, SeedSlot)):
            yield from _blocks(child, wrappers)
        else:
            yield child


def _record(
    module: nn.Module, path: str, calls: list[tuple[object, object]], handing_on: set[str]
) -> list[RemovableHandle]:
    """Note every call of a module, and by its path whether it only hands on its input."""
    base = module.base_layer if isinstance(module, SeedSlot) else module
    versions: list[int | None] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        versions.append(version_of(first_argument(base, args, kwargs)))

    def after(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], returned: object
    ) -> None:
        taken, version = first_argument(base, args, kwargs), versions.pop()
        calls.append((taken, returned))
        if passes_on(base, taken, version, returned):
            handing_on.add(path)

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]


def _shape(calls: list[tuple[object, object]]) -> SlotShape | None:
    """What every one of the calls maps, None where that is not one thing."""
    shapes: set[SlotShape] = set()
    for taken, returned in calls:
        if not isinstance(taken, Tensor) or not isinstance(returned, Tensor):
            return None
        try:
            shapes.add(SlotShape(input=feature_map(taken), output=feature_map(returned)))
        except InvalidArgument:
            return None
    return shapes.pop() if len(shapes) == 1 else None


def _makes(output: object, final: object) -> bool:
    """Whether a module's output is the network's, or a part of it where that has parts."""
    if isinstance(final, Mapping):
        return any(_makes(output, part) for part in final.values())
    if isinstance(final, tuple | list):
        return any(_makes(output, part) for part in final)
    return isinstance(output, Tensor) and output is final
