"""A network in training as it was at a boundary: weights, topology, optimiser state, as one."""

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from esper_lightning.kasmina import SeedBed, SeedSlot
from esper_lightning.leyline import InvalidArgument

_EXTRA = "_extra_state"
"""Ending of the names under which a ``state_dict`` holds what modules keep beside tensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a rollback restores, and nothing else.

    Every parameter and buffer is in it, whether or not the module's ``state_dict`` holds it.
    Counters, learning rates, the order of the data and the global random generators are not: they
    go on as they would have. The generators of seeds are, and so are the clocks of slots, which
    :meth:`restore` sets so that a ramp goes on where it was.

    Attributes:
        epoch: 0-based epoch at whose end the network was as it is here; -1 before the first.
        step: optimiser steps so far, when it was taken.
        tensors: parameters and buffers by name; None for a buffer that was not set.
        extras: what modules keep beside tensors, by path: the topology, in the records of slots.
        moments: the optimiser's state by group and parameter.
    """

    epoch: int
    step: int
    tensors: Mapping[str, Tensor | None]
    extras: Mapping[str, Any]
    moments: Sequence[Sequence[Mapping[str, Any]]]

    @classmethod
    def take(cls, module: nn.Module, optimizer: Optimizer, *, epoch: int, step: int) -> "Snapshot":
        """Copy what is there now."""
        return cls(
            epoch=epoch,
            step=step,
            tensors=_copied(
                {
                    **dict(module.named_parameters()),
                    **{name: part._buffers[key] for name, part, key in _buffers_of(module)},
                }
            ),
            extras={
                path: copy.deepcopy(part.get_extra_state())
                for path, part in module.named_modules()
                if type(part).get_extra_state is not nn.Module.get_extra_state
            },
            moments=[
                [_copied(optimizer.state.get(p, {})) for p in group["params"]]
                for group in optimizer.param_groups
            ],
        )

    @classmethod
    def read(cls, checkpoint: Mapping[str, Any], *, epoch: int, beside: "Snapshot") -> "Snapshot":
        """From a checkpoint that a Lightning Trainer wrote.

        Args:
            checkpoint: as it was loaded.
            epoch: at whose end the network was as it is there.
            beside: an older snapshot of the same module: what the checkpoint leaves out is as it
                is there.

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
        held = checkpoint["state_dict"]
        ends = f".{_EXTRA}"
        tensors = {name: value for name, value in held.items() if not f".{name}".endswith(ends)}
        return cls(
            epoch=epoch,
            step=checkpoint["global_step"],
            tensors={**beside.tensors, **tensors},
            extras={
                **beside.extras,
                **{
                    name.removesuffix(_EXTRA).removesuffix("."): value
                    for name, value in held.items()
                    if name not in tensors
                },
            },
            moments=[
                [optimizer["state"].get(number, {}) for number in group["params"]]
                for group in optimizer["param_groups"]
            ],
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, which load with ``weights_only=True``; ``Snapshot(**state)``."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @torch.no_grad()
    def restore(self, module: nn.Module, bed: SeedBed, optimizer: Optimizer, *, step: int) -> None:
        """Make the network and its optimiser what they were.

        Args:
            module: that it was taken of.
            bed: of the module's slots.
            optimizer: of the module.
            step: optimiser steps so far, now.
        """
        there = dict(optimizer.state)  # before seeds leave their groups and come again
        self._rebuild(module)
        for name, parameter in module.named_parameters():
            value = self.tensors.get(name)
            if value is not None:
                parameter.copy_(value)
        for name, part, key in _buffers_of(module):
            if name in self.tensors:
                part._buffers[key] = _put(self.tensors[name], part._buffers[key])
        bed.rewound(step - self.step)
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

    def _rebuild(self, module: nn.Module) -> None:
        """Slots first, as what has grown in them is there only then; parents come before parts."""
        paths = dict(module.named_modules())
        slots = [path for path, part in paths.items() if isinstance(part, SeedSlot)]
        for path in slots:
            paths[path].rebuild(self.extras[path])
        for path, part in module.named_modules():
            if path in self.extras and path not in slots:
                part.set_extra_state(copy.deepcopy(self.extras[path]))


def _buffers_of(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name, owner and the owner's name of every buffer, those that are not set included."""
    for path, part in module.named_modules():
        for key in part._buffers:
            yield f"{path}.{key}" if path else key, part, key


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in state.items()
    }


def _put(value: Any, there: Any, parameter: Tensor | None = None) -> Any:
    """A copy of ``value``, in the tensor that is there if it fits.

    What has the parameter's shape goes to its device; a counter of steps stays where it is.
    """
    if not isinstance(value, Tensor):
        return value
    fits = isinstance(there, Tensor) and (there.shape, there.dtype) == (value.shape, value.dtype)
    if fits and not there.is_inference():
        return there.copy_(value)
    like = parameter if parameter is not None and value.shape == parameter.shape else there
    device = like.device if isinstance(like, Tensor) else value.device
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
