"""What a network does to an example, operation by operation, as a ``torch.fx`` graph.

``torch.fx`` alone knows no values. Here each operation is also carried out on the example, so that
a forward pass may branch on shapes, dtypes and numbers. What it decides so is fixed in the graph.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.fx import Graph, Proxy, Tracer
from torch.fx.node import Node, map_aggregate
from torch.utils._pytree import tree_leaves

from esper_lightning.kasmina.export.example import Example
from esper_lightning.kasmina.random_stream import undisturbed_random

_FACTORIES = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "zeros")
"""Functions of torch that make a tensor of none: ``torch.fx`` does not see them."""

_ABOUT = frozenset(
    {
        *("dim", "element_size", "get_device", "is_complex", "is_contiguous", "is_floating_point"),
        *("is_tensor", "ndimension", "nelement", "numel", "size", "stride", "type"),
    }
)
"""What tells about a tensor, and not what it holds."""

_IN_PLACE = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")


def trace(network: nn.Module, example: Example, *, is_leaf: Callable[[nn.Module], bool]) -> Graph:
    """The operations of ``network``'s forward pass, in the mode in which it is.

    Args:
        network: its buffers are those of another pass afterwards; random generators are not moved.
            Where it turns gradients off, nodes have ``meta["needs_grad"]`` False.
        example: given by position and name; the graph takes these tensors and no other argument.
        is_leaf: modules whose inside is of no interest.

    Raises:
        DataDependent: the forward pass branches on the values of a tensor.

    Anything else that ``torch.fx`` cannot do raises as it does there.
    """
    device = next((parameter.device for parameter in network.parameters()), None)
    with torch.enable_grad(), undisturbed_random(device):
        graph = _ValueTracer(example, is_leaf).trace(network)
    _drop_unused_numbers(graph)
    return graph


class DataDependent(TypeError):
    """A forward pass that does one thing or another by the values of its tensors."""


class _Value(Proxy):
    """An operation's result: a node, and what it is for the example."""

    tracer: "_ValueTracer"

    def __init__(self, node: Node, tracer: "_ValueTracer") -> None:
        super().__init__(node, tracer)
        self.value: Any = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)
        if callable(found):
            return functools.partial(self.tracer.call_method, self, name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __bool__(self) -> bool:
        return bool(self._number("a condition"))

    def __int__(self) -> int:
        return int(self._number("a whole number"))

    def __float__(self) -> float:
        return float(self._number("a number"))

    def __index__(self) -> int:
        return operator.index(self._number("an index"))

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        getitem = functools.partial(self.tracer.create_proxy, "call_function", operator.getitem)
        return (getitem((self, place), {}) for place in range(len(self.value)))

    def _number(self, what: str) -> Any:
        if isinstance(self.value, Tensor) or self.node.meta["of_values"]:
            where = self.tracer.scope.module_path or "its forward pass"
            raise DataDependent(f"{where} takes values of a tensor for {what}")
        return self.value


def _in_place(name: str) -> Callable[[_Value, Any], Any]:
    function = getattr(operator, f"i{name}")

    def apply(self: _Value, other: Any) -> Any:
        if not isinstance(self.value, Tensor):
            return NotImplemented  # Python makes a new number
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return apply


for _name in _IN_PLACE:
    setattr(_Value, f"__i{_name}__", _in_place(_name))


class _ValueTracer(Tracer):
    """Carries out on the example whatever it records."""

    proxy_buffer_attributes = True

    def __init__(self, example: Example, is_leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._example = example.with_rows(example.num_rows)  # may be overwritten
        self._is_leaf = is_leaf
        self._carrying_out = False
        self._given: dict[str, Any] = {}

    def create_args_for_root(self, root_fn: Any, *_: Any) -> tuple[Any, list[Any]]:
        given = self._example
        names = _positional(type(self.root).forward, len(given.args))
        args = [self._placeholder(*each) for each in zip(names, given.args, strict=True)]
        named = {name: self._placeholder(name, each) for name, each in given.kwargs.items()}

        def forward(*_: Any) -> Any:
            with self._factories_recorded():
                return root_fn(self.root, *args, **named)

        forward.__annotations__ = {}
        return forward, []

    def is_leaf_module(self, m: nn.Module, *_: Any) -> bool:
        return self._is_leaf(m)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self._carrying_out:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._carrying_out:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_method(self, proxy: _Value, name: str, *args: Any, **kwargs: Any) -> Any:
        """Record the call of a method."""
        return self.create_proxy("call_method", name, (proxy, *args), kwargs)

    def proxy(self, node: Node) -> Proxy:
        return _Value(node, self)

    def create_node(self, kind: str, target: Any, *rest: Any, **more: Any) -> Node:
        node = super().create_node(kind, target, *rest, **more)
        with self._for_real():
            value = operator.attrgetter(target)(self.root) if kind == "get_attr" else None
        node.meta.update(value=value, needs_grad=torch.is_grad_enabled(), of_values=False)
        return node

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any
    ) -> Any:
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        if kind != "get_attr":
            with self._for_real():
                result = self._result(kind, target, _values(args), _values(kwargs))
            proxy.node.meta.update(value=result, of_values=_is_of_values(proxy.node, result))
        proxy.value = proxy.node.meta["value"]
        return proxy

    @contextmanager
    def _for_real(self) -> Iterator[None]:
        """Record nothing that happens inside."""
        before, self._carrying_out = self._carrying_out, True
        try:
            yield
        finally:
            self._carrying_out = before

    def _placeholder(self, name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        self._given[name] = value
        return self.create_proxy("placeholder", name, (), {})

    def _result(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self._given[target]
        if kind == "call_module":
            return self.root.get_submodule(target)(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs)

    @contextmanager
    def _factories_recorded(self) -> Iterator[None]:
        """Record calls of the functions that make tensors of none."""

        def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                if self._carrying_out:
                    return function(*args, **kwargs)
                return self.create_proxy("call_function", function, args, kwargs)

            return call

        with ExitStack() as stack:
            for name in _FACTORIES:
                replaced = recorded(getattr(torch, name))
                stack.enter_context(mock.patch.object(torch, name, replaced))
            yield


def _is_of_values(node: Node, result: Any) -> bool:
    """Whether a number was read out of a tensor, or computed from one that was."""
    if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
        return False
    about = node.target is getattr or getattr(node.target, "__name__", node.target) in _ABOUT
    return any(
        read.meta["of_values"] or (isinstance(read.meta["value"], Tensor) and not about)
        for read in node.all_input_nodes
    )


def _positional(forward: Callable[..., Any], number: int) -> list[str]:
    """Names of the first arguments behind ``self``."""
    several = inspect.Parameter.VAR_POSITIONAL
    names = [
        p.name for p in inspect.signature(forward).parameters.values() if p.kind is not several
    ]
    return [*names[1:], *(f"x{place}" for place in range(number))][:number]


def _values(arguments: Any) -> Any:
    return map_aggregate(arguments, lambda each: each.value if isinstance(each, _Value) else each)


def _drop_unused_numbers(graph: Graph) -> None:
    """Take out shapes, and what was computed from them, that served a decision only."""
    for node in reversed(graph.nodes):
        made = node.meta.get("value")
        numbers = made is not None and not any(
            isinstance(leaf, Tensor | None) for leaf in tree_leaves(made)
        )
        if node.op in ("call_function", "call_method") and numbers and not node.users:
            graph.erase_node(node)
