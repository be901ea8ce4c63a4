"""What a written network holds: modules of ``torch.nn``, parameters and buffers, by flat names."""

import keyword
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph

from esper_lightning.kasmina.export.errors import NotExportable


class Members:
    """The members of a network that its graphs use, in the order in which they are used.

    Args:
        network: whose members they are.
        constructors: expressions that make its modules, of those that have one.
        graphs: of the network.

    Attributes:
        declarations: statements of a constructor.
        weights: state of the written network, copies.
        parameters: names in the network by those in the written one.
    """

    def __init__(
        self, network: nn.Module, constructors: Mapping[nn.Module, str], graphs: Iterable[Graph]
    ) -> None:
        self.declarations: list[str] = []
        self.weights: dict[str, Tensor] = {}
        self.parameters: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._network = network
        self._constructors = constructors
        self._places: dict[int, str] = {}
        nodes = [node for graph in graphs for node in graph.nodes]
        called = [str(node.target) for node in nodes if node.op == "call_module"]
        self._called = dict.fromkeys(called)
        for node in nodes:
            if node.op == "call_module":
                self._add_module(str(node.target))
            elif node.op == "get_attr":
                self._add_tensor(str(node.target), node.meta["value"])

    def __getitem__(self, path: str) -> str:
        """The name of what is at ``path`` in the network, behind ``self.``."""
        return self._names[path]

    def _add_module(self, path: str) -> None:
        if path in self._names:
            return
        name = self._names[path] = self._free_name(path)
        module = self._network.get_submodule(path)
        trained = {parameter.requires_grad for parameter in module.parameters()}
        frozen = ".requires_grad_(False)" if trained == {False} else ""
        self.declarations.append(f"self.{name} = {self._constructors[module]}{frozen}")
        for inside, parameter in module.named_parameters(remove_duplicate=False):
            place = f"{name}.{inside}"
            self.parameters[place] = f"{path}.{inside}"
            first = self._places.setdefault(id(parameter), place)
            if first != place:
                self.declarations.append(f"self.{place} = self.{first}")
            elif not parameter.requires_grad and not frozen:
                self.declarations.append(f"self.{place}.requires_grad_(False)")
        for inside, value in module.state_dict().items():
            self._keep(f"{name}.{inside}", value)

    def _add_tensor(self, path: str, value: Any) -> None:
        if path in self._names:
            return
        if not isinstance(value, Tensor):
            raise NotExportable(f"{path} is a {type(value).__name__}, which source cannot hold")
        owner, _, attribute = path.rpartition(".")
        if owner in self._called:
            self._add_module(owner)
            self._names[path] = f"{self._names[owner]}.{attribute}"
            return
        value = self._own(path, value)
        if id(value) in self._places:
            self._names[path] = self._places[id(value)]
            return
        name = self._names[path] = self._free_name(path)
        dtype = "" if value.dtype is torch.float32 else f", dtype={value.dtype}"
        empty = f"torch.empty({tuple(value.shape)}{dtype})"
        if isinstance(value, nn.Parameter):
            self._places[id(value)] = name
            self.parameters[name] = path
            frozen = "" if value.requires_grad else ", requires_grad=False"
            self.declarations.append(f"self.{name} = nn.Parameter({empty}{frozen})")
        else:
            self.declarations.append(f'self.register_buffer("{name}", {empty})')
        self._keep(name, value)

    def _own(self, path: str, value: Tensor) -> Tensor:
        """The network's own tensor; ``value`` is a copy's, or a constant that tracing made."""
        found: Any = self._network
        for part in path.split("."):
            found = getattr(found, part, None)
        return found if isinstance(found, Tensor) else value

    def _keep(self, name: str, value: Tensor) -> None:
        self.weights[name] = value.detach().cpu().contiguous().clone()

    def _free_name(self, path: str) -> str:
        parts = [part for part in path.split(".") if part != "base_layer"]
        name = "_".join(parts).strip("_") or "itself"
        if hasattr(nn.Module(), name) or keyword.iskeyword(name) or not name.isidentifier():
            name = f"_{name}"
        taken, number, wanted = set(self._names.values()), 2, name
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        return name
