"""The host's layers, and which of them computes from which: seen in one training step."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from esper_lightning.kasmina.host_paths import distinct_modules
from esper_lightning.kasmina.slot import SeedSlot
from esper_lightning.leyline import LayerState

MAX_LAYERS = 64
"""Layers that are told of, so that a controller's time is bounded. Where a host has more, those
that lie deepest are left out first and slots never; what read them then reads what they read."""


class HostLayers:
    """Looks, while it is open, at how the layers of a network are called.

    A layer is a slot, or a module with parameters of its own that is none of a seed's. What it
    reads is found from the autograd graph: back from its inputs to the nearest outputs of other
    layers. Where no gradient flows, that is not known, and nothing is said.

    It hooks modules, and a host may run otherwise while a hook is there: it is opened for one
    training step and closed after it. Inside a compiled module nothing is hooked.
    """

    def __init__(self) -> None:
        self._found: dict[str, LayerState] = {}
        self._made_by: dict[Any, str] = {}
        self._hooks: list[Any] = []

    @property
    def found(self) -> tuple[LayerState, ...]:
        """The layers, in the order of their first calls; empty before a step was seen."""
        return tuple(self._found.values())

    @found.setter
    def found(self, layers: Iterable[LayerState]) -> None:
        self._found = {layer.path: layer for layer in layers}

    def open(self, network: nn.Module) -> None:
        """Look at the next forward pass of ``network``, if none was seen yet."""
        if self._found:
            return
        self.close()
        for path, module in _nearest(_layers(network)).items():
            self._hooks += [
                module.register_forward_pre_hook(self._before(path), with_kwargs=True),
                module.register_forward_hook(self._after(path)),
            ]

    def close(self) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._made_by.clear()

    def _before(self, path: str) -> Any:
        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if torch.is_grad_enabled() and path not in self._found:
                layer = module.base_layer if isinstance(module, SeedSlot) else module
                self._found[path] = LayerState(
                    path=path,
                    module=type(layer).__name__,
                    num_parameters=_num_parameters(layer),
                    reads=tuple(self._behind((args, kwargs))),
                )

        return look

    def _after(self, path: str) -> Any:
        def look(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
            for node in _nodes(output):
                self._made_by[node] = path

        return look

    def _behind(self, inputs: Any) -> list[str]:
        """The nearest layers that ``inputs`` were computed by, in the order of their calls."""
        seen, open_ = set(), _nodes(inputs)
        reads: set[str] = set()
        while open_:
            node = open_.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self._made_by:
                reads.add(self._made_by[node])
            else:
                open_ += [before for before, _ in node.next_functions if before is not None]
        return [path for path in self._found if path in reads]


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """Slots, and modules with parameters of their own, where hooks can be."""
    modules = distinct_modules(network)
    rigid = [
        f"{path}."
        for path, module in modules.items()
        if module._compiled_call_impl is not None or isinstance(module, torch.jit.ScriptModule)
    ]
    return {
        path: module
        for path, module in modules.items()
        if (isinstance(module, SeedSlot) or any(True for _ in module.parameters(recurse=False)))
        and not path.startswith(tuple(rigid))
    }


def _nearest(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """At most :data:`MAX_LAYERS` of them and every slot, the deepest left out first."""
    depth = max((path.count(".") for path in layers), default=0)
    while len(layers) > MAX_LAYERS and depth > 0:
        layers = {
            path: module
            for path, module in layers.items()
            if isinstance(module, SeedSlot) or path.count(".") < depth
        }
        depth -= 1
    return layers


def _nodes(values: Any) -> list[Any]:
    """Where in the autograd graph the tensors among ``values`` come from."""
    tensors = [each for each in tree_leaves(values) if isinstance(each, Tensor)]
    return [each.grad_fn for each in tensors if each.grad_fn is not None]


def _num_parameters(layer: nn.Module) -> int:
    """Of the host's own; slots inside count what they wrap."""
    grown = {
        id(p)
        for module in layer.modules()
        if isinstance(module, SeedSlot)
        for p in module.branch_parameters()
    }
    return sum(p.numel() for p in layer.parameters() if id(p) not in grown)
