"""Floating-point operations of what really ran: matrix products and convolutions, forward and back.

A multiply-add counts as two. Two formulas of :mod:`torch.utils.flop_counter` are replaced: its
backward of a grouped convolution ignores the groups (11 to 43 times too many for depthwise ones),
and attention on the CPU is counted as nothing. Causal attention counts all pairs, those that its
mask hides too, on every device. Elementwise work, FFTs, recurrent layers on the CPU and whatever
runs in inference mode are not counted.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    conv_flop_count,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

aten = torch.ops.aten


def _convolution_backward(inputs: tuple[Any, ...]) -> int:
    """Each of the two gradients of a convolution costs what its forward pass costs."""
    grad_out, x, weight = inputs[0], inputs[1], inputs[2]
    transposed, mask = inputs[7], inputs[10]
    forward: int = conv_flop_count(
        list(x.shape), list(weight.shape), list(grad_out.shape), transposed=transposed
    )
    return forward * (int(mask[0]) + int(mask[1]))


def _cpu_attention(inputs: tuple[Any, ...]) -> int:
    return int(sdpa_flop_count(*(t.shape for t in inputs[:3])))  # type: ignore[no-untyped-call]


def _cpu_attention_backward(inputs: tuple[Any, ...]) -> int:
    return int(sdpa_backward_flop_count(*(t.shape for t in inputs[:4])))  # type: ignore[no-untyped-call]


_CORRECTED: dict[Any, Callable[[tuple[Any, ...]], int]] = {
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
}


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered; changes nothing of what runs.

    >>> with FlopCount() as count:
    ...     _ = torch.ones(3, 4) @ torch.ones(4, 5)
    >>> count.total
    120
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and add its operations."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in _CORRECTED:
            self.total += _CORRECTED[packet](args)
        elif packet in flop_registry:
            self.total += int(flop_registry[packet](*args, **kwargs, out_val=output))
        return output


class FlopMeter:
    """Training FLOPs of a run: one step is counted for each topology, the others are known by it.

    The count is of the training step as it ran (forward and backward passes, incubation included),
    divided by its batch size.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._per_sample: dict[Hashable, float] = {}
        self._counting: FlopCount | None = None
        self._whole = False

    def begin(self, topology: Hashable) -> None:
        """Before a training step of a network with this topology and these stages."""
        self.abort()
        self._whole = False
        if topology not in self._per_sample:
            self._counting = FlopCount()
            self._counting.__enter__()  # type: ignore[no-untyped-call]

    def backward(self) -> None:
        """A backward pass ran: the step is a whole one."""
        self._whole = True

    def end(self, topology: Hashable, batch_size: int) -> None:
        """After it. A step without a backward pass costs nothing and tells nothing."""
        counted = self._counting
        self.abort()
        if not self._whole:
            return
        if counted is not None:
            self._per_sample[topology] = counted.total / batch_size
        self.total += self._per_sample[topology] * batch_size

    @contextmanager
    def beside(self, work: Hashable, batch_size: int, *, afresh: bool = False) -> Iterator[None]:
        """Bill what runs inside, which is no part of the step: counted once for each ``work``.

        Args:
            work: equal for two pieces of work that run the same operations on each sample.
            batch_size: of this one.
            afresh: count it each time.
        """
        known = None if afresh or self._counting is not None else self._per_sample.get(work)
        if known is not None:
            yield
            self.total += known * batch_size
            return
        with FlopCount() as count:
            yield
        if self._counting is not None:  # it saw these operations too
            self._counting.total -= count.total
        self._per_sample[work] = count.total / batch_size
        self.total += count.total

    def state_dict(self) -> dict[str, Any]:
        """What was spent so far; what a step costs is counted again."""
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.total = state["total"]

    def abort(self) -> None:
        """Stop counting: the step ended otherwise."""
        if self._counting is not None:
            self._counting.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._counting = None

    def remember(self, topology: Hashable, per_sample: float) -> None:
        """What a topology costs, counted by an earlier part of the run."""
        self._per_sample[topology] = per_sample

    def per_sample(self, topology: Hashable) -> float | None:
        """FLOPs of one training sample, None when no step of this topology has run."""
        return self._per_sample.get(topology)
