"""A ``torch.fx`` graph as the statements of a forward pass."""

import builtins
import inspect
import math
import operator
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Graph
from torch.fx.node import Node
from torch.utils._pytree import tree_leaves

from esper_lightning.kasmina.export.errors import NotExportable
from esper_lightning.kasmina.export.literals import is_literal, literal
from esper_lightning.kasmina.export.members import Members

_INFIX = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/",
    operator.floordiv: "//", operator.mod: "%", operator.pow: "**", operator.matmul: "@",
    operator.and_: "&", operator.or_: "|", operator.xor: "^",
    operator.eq: "==", operator.ne: "!=", operator.lt: "<", operator.le: "<=",
    operator.gt: ">", operator.ge: ">=",
}  # fmt: skip
_PREFIX = {operator.neg: "-", operator.invert: "~", operator.pos: "+"}
_IN_PLACE = {
    operator.iadd: "+=", operator.isub: "-=", operator.imul: "*=", operator.itruediv: "/=",
    operator.ifloordiv: "//=", operator.imod: "%=", operator.ipow: "**=", operator.imatmul: "@=",
    operator.iand: "&=", operator.ior: "|=", operator.ixor: "^=",
}  # fmt: skip
_NAMESPACES: dict[str, ModuleType] = {
    "F": F, "torch": torch, "torch.linalg": torch.linalg, "torch.fft": torch.fft,
    "torch.special": torch.special, "math": math, "": builtins,
}  # fmt: skip
_INDENT, _NO_GRAD = "    ", "with torch.no_grad():"
_RESERVED = frozenset({"self", "F", "math", "nn", "torch"})


def _functions() -> dict[int, str]:
    """How a source that imports ``torch``, ``F`` and ``math`` calls a function, by its identity."""
    names: dict[int, str] = {}
    for prefix, namespace in _NAMESPACES.items():
        for name, value in vars(namespace).items():
            if inspect.isroutine(value):
                names.setdefault(id(value), f"{prefix}.{name}".lstrip("."))
    return names


_FUNCTIONS = _functions()


class Statements:
    """Writes a graph.

    A result takes the name of an operand that nothing needs any more, as in a forward pass that is
    written by hand, else ``h``, ``h2`` and so on, the first that is free. Members, shapes and parts
    of tuples are written where they are used.

    Args:
        graph: of a forward pass, traced by :func:`~esper_lightning.kasmina.export.tracing.trace`.
        members: names in the written network, by the path of a module or a tensor.

    Attributes:
        arguments: names of what the forward pass takes.
        lines: of its body.

    Raises:
        NotExportable: something is called, or handed on, that is not of torch.
    """

    def __init__(self, graph: Graph, members: Members) -> None:
        self.arguments: list[str] = []
        self.lines: list[str] = []
        self._members = members
        self._texts: dict[Node, str] = {}
        self._last_use: dict[Node, Node] = {}
        self._free = {"h", *(f"h{number}" for number in range(2, len(graph.nodes) + 2))}
        for node in graph.nodes:
            if not _is_inner(node):
                self._last_use.update(dict.fromkeys(_variables(node), node))
        for node in graph.nodes:
            self._write(node)

    def _write(self, node: Node) -> None:
        target: Any = node.target
        if node.op == "placeholder":
            self._texts[node] = f"{node.name}_" if node.name in _RESERVED else node.name
            self.arguments.append(self._texts[node])
            self._free.discard(self._texts[node])
        elif node.op == "output":
            self.lines.append(f"return {self._text(node.args[0])}")
        elif _is_inner(node):
            self._texts[node] = self._expression(node)
        elif target is operator.setitem:
            place, index, value = node.args
            self._say(f"{self._text(place)}[{self._index(index)}] = {self._text(value)}", node)
        elif target in _IN_PLACE:
            self._texts[node] = self._text(node.args[0])
            self._say(f"{self._texts[node]} {_IN_PLACE[target]} {self._text(node.args[1])}", node)
        elif node.users:
            text = self._expression(node)
            self._texts[node] = self._name(node)
            self._say(f"{self._texts[node]} = {text}", node)
        else:
            self._say(self._expression(node), node)

    def _say(self, line: str, node: Node) -> None:
        if node.meta["needs_grad"]:
            self.lines.append(line)
            return
        if not (self.lines and self.lines[-1].startswith((_INDENT, _NO_GRAD))):
            self.lines.append(_NO_GRAD)
        self.lines.append(_INDENT + line)

    def _name(self, node: Node) -> str:
        """Of an operand whose last use this is, and otherwise the first that is free."""
        over = [self._texts[each] for each in _variables(node) if self._last_use[each] is node]
        self._free.update(over)
        name = over[0] if over else min(self._free, key=lambda name: (len(name), name))
        self._free.discard(name)
        return name

    def _expression(self, node: Node) -> str:
        target: Any = node.target
        args, kwargs = node.args, node.kwargs
        if node.op == "get_attr":
            return f"self.{self._members[target]}"
        if node.op == "call_module":
            return f"self.{self._members[target]}({self._arguments(args, kwargs)})"
        if node.op == "call_method":
            return f"{self._operand(args[0])}.{target}({self._arguments(args[1:], kwargs)})"
        if target in _INFIX:
            return f"{self._operand(args[0])} {_INFIX[target]} {self._operand(args[1])}"
        if target in _PREFIX:
            return f"{_PREFIX[target]}{self._operand(args[0])}"
        if target is operator.getitem:
            return f"{self._operand(args[0])}[{self._index(args[1])}]"
        if target is getattr:
            return f"{self._operand(args[0])}.{args[1]}"
        if id(target) not in _FUNCTIONS:
            called = getattr(target, "__qualname__", repr(target))
            raise NotExportable(
                f"it calls {getattr(target, '__module__', None)}.{called}, which is not of torch"
            )
        return f"{_FUNCTIONS[id(target)]}({self._arguments(args, kwargs)})"

    def _arguments(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
        texts = [self._text(each) for each in args]
        return ", ".join(texts + [f"{name}={self._text(each)}" for name, each in kwargs.items()])

    def _operand(self, value: Any) -> str:
        text = self._text(value)
        if isinstance(value, Node):
            loose = _is_inner(value) and value.target in (*_INFIX, *_PREFIX)
        else:
            loose = text.startswith("-")
        return f"({text})" if loose else text

    def _index(self, value: Any) -> str:
        if isinstance(value, tuple) and value:
            return ", ".join(self._index(each) for each in value) + "," * (len(value) == 1)
        if isinstance(value, slice):
            start, stop, step = (
                "" if each is None else self._text(each)
                for each in (value.start, value.stop, value.step)
            )
            return f"{start}:{stop}" + (f":{step}" if step else "")
        return self._text(value)

    def _text(self, value: Any) -> str:
        if isinstance(value, Node):
            return self._texts[value]
        if isinstance(value, tuple):
            return f"({', '.join(map(self._text, value))}{',' * (len(value) == 1)})"
        if isinstance(value, list):
            return f"[{', '.join(map(self._text, value))}]"
        if isinstance(value, dict):
            items = (f"{self._text(key)}: {self._text(each)}" for key, each in value.items())
            return f"{{{', '.join(items)}}}"
        if not is_literal(value):
            raise NotExportable(
                f"it hands on {value!r}, a {type(value).__name__}, which source cannot hold"
            )
        return literal(value)


def _is_inner(node: Node) -> bool:
    """Whether a node is written where it is used: it changes nothing, and is short."""
    if node.op == "get_attr":
        return True
    if node.op not in ("call_function", "call_method") or not node.users:
        return False
    made = tree_leaves(node.meta["value"])
    is_number = not any(isinstance(leaf, Tensor | None) for leaf in made)
    if node.target is operator.getitem:
        whole: Any = node.args[0]
        return is_number or (len(node.users) == 1 and not _is_tensor(whole))
    return is_number and (node.target is getattr or len(node.users) == 1)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Node) and isinstance(value.meta["value"], Tensor)


def _variables(node: Node) -> list[Node]:
    """The nodes behind the names that a statement reads, in order."""
    found: dict[Node, None] = {}
    for read in node.all_input_nodes:
        while read.target in _IN_PLACE:  # bears the name of what it changed
            read = read.all_input_nodes[0]
        found.update(dict.fromkeys(_variables(read) if _is_inner(read) else [read]))
    return list(found)
