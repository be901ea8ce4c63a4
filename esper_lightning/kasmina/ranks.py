"""The processes that train one network together."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map_only

from esper_lightning.leyline import OtherRankFailed

Value = TypeVar("Value")


class Ranks:
    """What the ranks of ``torch.distributed`` tell each other; a process alone talks to nobody.

    Every method must be called by all ranks, in the same order.

    Attributes:
        size: number of ranks.
        rank: of this process, from 0.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.size: int = dist.get_world_size() if together else 1
        self.rank: int = dist.get_rank() if together else 0

    @property
    def alone(self) -> bool:
        """True where there is no other rank."""
        return self.size == 1

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, by rank; tensors in them are on the CPU."""
        if self.alone:
            return [value]
        values = [value] * self.size
        dist.all_gather_object(values, tree_map_only(Tensor, lambda t: t.cpu(), value))
        return values

    def first(self, make: Callable[[], Value]) -> Value:
        """What the first rank makes of it; the others do not call ``make``.

        Raises:
            OtherRankFailed: on the others, when ``make`` raised on the first.
        """
        if self.alone:
            return make()
        if self.rank == 0:
            try:
                value = make()
            except Exception as error:  # the others must not wait for an answer that never comes
                dist.broadcast_object_list([(None, f"{type(error).__name__}: {error}")])
                raise
            dist.broadcast_object_list([(value, "")])
            return value
        told: list[tuple[Value, str]] = [(None, "")]  # type: ignore[list-item]
        dist.broadcast_object_list(told)
        value, why = told[0]
        if why:
            raise OtherRankFailed(f"rank {self.rank} stops because rank 0 failed: {why}")
        return value

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Set floating-point tensors in place to their mean over the ranks, bit for bit on all."""
        if not self.alone:
            for alike in _by_kind(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in alike])
                dist.all_reduce(flat)
                flat /= self.size
                _spread(flat, alike)

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Set tensors in place to what they are on the first rank."""
        if not self.alone:
            for alike in _by_kind(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in alike])
                dist.broadcast(flat.view(torch.uint8), 0)  # not every backend knows every type
                _spread(flat, alike)

    def check_equal(self, value: object) -> None:
        """Stop all ranks where they disagree, rather than let each train a network of its own.

        Args:
            value: equal on all ranks if its ``repr`` is.

        Raises:
            OtherRankFailed: on all of them.
        """
        if self.alone:
            return
        told = self.gather(repr(value))
        differing = [rank for rank, each in enumerate(told) if each != told[0]]
        if differing:
            raise OtherRankFailed(
                f"ranks {differing} hold another network than rank 0: {told[differing[0]]} instead "
                f"of {told[0]}; the ranks must run the same code on the same kind of hardware"
            )


def _by_kind(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Groups of tensors of one type on one device; empty ones are left out."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel():
            real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            groups.setdefault((real.dtype, real.device), []).append(real.detach())
    return list(groups.values())


def _spread(flat: Tensor, tensors: list[Tensor]) -> None:
    for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
