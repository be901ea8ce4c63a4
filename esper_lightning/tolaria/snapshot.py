"""A network in training as it was at a boundary: weights, topology, optimiser state, as one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from esper_lightning.kasmina import SeedBed
from esper_lightning.leyline import InvalidArgument


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a rollback restores, and nothing else.

    Counters, learning rates, the order of the data and the global random generators are not in it:
    they go on as they would have. The generators of seeds are, and so are the clocks of slots,
    which :meth:`restore` sets so that a ramp goes on where it was.

    Attributes:
        epoch: 0-based epoch at whose end it was taken; -1 before the first.
        step: optimiser steps so far, at that time.
        weights: the module's ``state_dict``, which holds the slots' topology.
        moments: the optimiser's state by group and parameter.
    """

    epoch: int
    step: int
    weights: dict[str, Any]
    moments: tuple[tuple[dict[str, Any], ...], ...]

    @classmethod
    def take(cls, module: nn.Module, optimizer: Optimizer, *, epoch: int, step: int) -> "Snapshot":
        """Copy what is there now."""
        return cls(
            epoch=epoch,
            step=step,
            weights=_copied(module.state_dict()),
            moments=tuple(
                tuple(_copied(optimizer.state.get(p, {})) for p in group["params"])
                for group in optimizer.param_groups
            ),
        )

    @classmethod
    def read(cls, checkpoint: Mapping[str, Any]) -> "Snapshot":
        """From a checkpoint that a Lightning Trainer wrote.

        Raises:
            InvalidArgument: it holds no state of an optimiser.
        """
        states = checkpoint.get("optimizer_states") or []
        if len(states) != 1:
            raise InvalidArgument(
                f"the checkpoint holds the state of {len(states)} optimisers, one is needed to "
                f"roll back to it; write it with save_weights_only=False"
            )
        (optimizer,) = states
        return cls(
            epoch=checkpoint["epoch"],
            step=checkpoint["global_step"],
            weights=dict(checkpoint["state_dict"]),
            moments=tuple(
                tuple(optimizer["state"].get(number, {}) for number in group["params"])
                for group in optimizer["param_groups"]
            ),
        )

    def restore(self, module: nn.Module, bed: SeedBed, optimizer: Optimizer, *, step: int) -> None:
        """Make the network and its optimiser what they were.

        Args:
            module: that it was taken of.
            bed: of the module's slots.
            optimizer: of the module.
            step: optimiser steps so far, now.
        """
        module.load_state_dict(self.weights)
        bed.rewound(step - self.step)
        there = dict(optimizer.state)
        optimizer.state.clear()
        for group, moments in zip(optimizer.param_groups, self.moments, strict=True):
            for parameter, state in zip(group["params"], moments, strict=True):
                parameter.grad = None
                if state:
                    known = there.get(parameter, {})
                    optimizer.state[parameter] = {
                        name: _put(value, known.get(name), parameter)
                        for name, value in state.items()
                    }


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in state.items()
    }


def _put(value: Any, there: Any, parameter: Tensor) -> Any:
    """A copy of ``value``, in the tensor that is there if it fits.

    What has the parameter's shape goes to its device; a counter of steps stays where it is.
    """
    if not isinstance(value, Tensor):
        return value
    if isinstance(there, Tensor) and (there.shape, there.dtype) == (value.shape, value.dtype):
        return there.copy_(value)
    device = parameter.device if value.shape == parameter.shape else value.device
    return value.detach().to(device, copy=True)


@torch.no_grad()
def is_finite(module: nn.Module, *, without: Iterable[nn.Module] = ()) -> bool:
    """Whether every weight and buffer of a module is finite. Waits for the device, once.

    Args:
        module: to look at.
        without: submodules that may hold what they like.
    """
    left_out = {id(t) for part in without for t in (*part.parameters(), *part.buffers())}
    tensors = [
        tensor.detach()
        for tensor in (*module.parameters(), *module.buffers())
        if tensor.is_floating_point() and tensor.numel() and id(tensor) not in left_out
    ]
    if not tensors:
        return True
    # The largest absolute value is NaN or infinite just where one of them is.
    largest = torch._foreach_norm(tensors, float("inf"))
    return bool(torch.isfinite(torch.stack([norm.float() for norm in largest])).all())
