"""A real input of a network, at any number of rows, and what the network makes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from esper_lightning.kasmina.export.errors import NotExportable
from esper_lightning.kasmina.feature_maps import probing
from esper_lightning.leyline import InvalidArgument

TOLERANCE = 1e-6
"""Largest difference of an exported network's output, absolute and relative."""


@dataclass(frozen=True)
class Example:
    """What a forward pass is given.

    Attributes:
        args: by position.
        kwargs: by name.
        num_rows: size of the batch: of the first dimension of the first tensor.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    num_rows: int

    @classmethod
    def of(cls, given: object) -> "Example":
        """From a tensor, a tuple of arguments, or a mapping of named ones.

        Raises:
            InvalidArgument: something else, or nothing in it has a batch.
        """
        args, kwargs = (given,) if isinstance(given, Tensor) else (), {}
        if isinstance(given, tuple):
            args = given
        elif isinstance(given, Mapping):
            kwargs = {str(name): value for name, value in given.items()}
        rows = (t.shape[0] for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.ndim)
        num_rows = next(rows, 0)
        if num_rows < 1:
            raise InvalidArgument(
                f"example must be a batch that the network takes: a tensor, a tuple of arguments "
                f"or a mapping of named ones, with at least one row; got {type(given).__name__}"
            )
        return cls(args, kwargs, num_rows)

    def is_batch(self, value: object) -> bool:
        """Whether ``value`` is a tensor with a row for each row of the example."""
        return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == self.num_rows

    def with_rows(self, num_rows: int) -> "Example":
        """The same with another batch size: rows are left out, or come again."""

        def resized(value: Any) -> Any:
            if not self.is_batch(value):
                return value.clone() if isinstance(value, Tensor) else value
            rows = torch.arange(num_rows, device=value.device) % self.num_rows
            return value[rows]

        return Example(tree_map(resized, self.args), tree_map(resized, self.kwargs), num_rows)

    def only_tensors(self) -> "Example":
        """Without the arguments that are no tensor."""
        args = tuple(value for value in self.args if isinstance(value, Tensor))
        kwargs = {name: each for name, each in self.kwargs.items() if isinstance(each, Tensor)}
        return Example(args, kwargs, self.num_rows)

    def call(self, network: Callable[..., Any]) -> Any:
        """What ``network`` returns; it is given copies, for it may overwrite them."""
        own = self.with_rows(self.num_rows)
        return network(*own.args, **own.kwargs)

    def sizes(self) -> list["Example"]:
        """The two batch sizes at which an export is tried, both above 1."""
        num_rows = max(2, self.num_rows)
        return [self.with_rows(num_rows), self.with_rows(num_rows + 1)]

    def through(self, network: nn.Module) -> list[Any]:
        """What ``network`` returns in eval mode, flat.

        Raises:
            NotExportable: see :func:`builtin`. What the network raises comes as it is.
        """
        with probing(network):
            return flat(self.call(network))


def flat(output: object) -> list[Any]:
    """The parts of an output, in order."""
    leaves: list[Any] = tree_leaves(builtin(output))
    return leaves


def builtin(output: Any) -> Any:
    """An output whose containers are Python's own: no class is needed to read it.

    Raises:
        NotExportable: it holds something else than tensors, numbers and None.
    """
    if isinstance(output, Mapping):
        return {str(name): builtin(value) for name, value in output.items()}
    if isinstance(output, tuple | list):
        parts = [builtin(value) for value in output]
        return parts if isinstance(output, list) else tuple(parts)
    if not isinstance(output, Tensor | bool | int | float | None):
        raise NotExportable(
            f"the network returns a {type(output).__name__}; let it return tensors, in "
            f"tuples, lists or mappings (of a Hugging Face model: config.use_cache = False)"
        )
    return output


def difference(before: list[Any], after: list[Any]) -> str:
    """How two flat outputs differ by more than :data:`TOLERANCE`, in words; empty when not."""
    if len(before) != len(after):
        return f"{len(before)} outputs became {len(after)}"
    for a, b in zip(before, after, strict=True):
        if not isinstance(a, Tensor):
            if a != b:
                return f"{a!r} became {b!r}"
        elif not isinstance(b, Tensor) or (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"a tensor {tuple(a.shape)} became something else"
        elif not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            return f"outputs differ by {float((a.double() - b.double()).abs().max()):.2g}"
    return ""
