"""From a checkpoint to a grown network, for modules that know nothing of growth."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from esper_lightning.kasmina.branch import BuildBranch
from esper_lightning.kasmina.graft import regraft
from esper_lightning.leyline import DecodeError, InvalidArgument

Module = TypeVar("Module", bound=nn.Module)

_MOST_LISTED = 6
"""Differences between checkpoint and module that an error names."""


def restore(
    module: Module, checkpoint: str | os.PathLike[str] | Mapping[str, Any], *, build: BuildBranch
) -> Module:
    """Give a fresh module the slots, the branches and the weights that a checkpoint holds.

    This is ``load_from_checkpoint`` for a LightningModule of anybody's, and works on any module::

        model = kasmina.restore(Classifier(), "last.ckpt", build=karn.build)

    Args:
        module: as it was constructed before it grew, or with its slots; changed in place. Its mode
            stays (training, for a new one: call ``eval()``).
        checkpoint: path of a Lightning checkpoint, which is read on the CPU without running code
            that it may contain; or what ``torch.load`` returns for it.
        build: how to build a named branch, for blueprints of the catalogue ``karn.build``.

    Returns:
        ``module``.

    Raises:
        InvalidArgument: there is no such file, or weights do not fit the module.
        DecodeError: a file that is damaged or holds more than plain data, no Lightning checkpoint,
            one without slots, or one of another version.
        UnknownSlot: a slot's path is not in the module.
        UnknownBlueprint: what has grown cannot be built any more.
    """
    what, held = _read(checkpoint)
    state = held.get("state_dict")
    if not isinstance(state, Mapping):
        raise DecodeError(
            f"{what} is no Lightning checkpoint: it has no state_dict, but {sorted(map(str, held))}"
        )
    if not any(key.endswith("._extra_state") for key in state):
        raise DecodeError(
            f"{what} holds no slots: nothing has grown in it; use module.load_state_dict"
        )
    regraft(module, state, build=build)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        told = [line.strip() for line in str(error).splitlines()[1:]]
        raise InvalidArgument(
            f"{what} does not fit this {type(module).__name__}: {' '.join(told[:_MOST_LISTED])} "
            f"Construct the module as the one that was trained"
        ) from error
    return module


def _read(checkpoint: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(checkpoint, Mapping):
        return "this checkpoint", checkpoint
    path = Path(checkpoint)
    what = f"checkpoint {str(path)!r}"
    if not path.is_file():
        raise InvalidArgument(f"{what}: there is no such file")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DecodeError(
            f"{what} is damaged, or holds more than tensors and plain values ({_first(error)}); "
            f"if you trust it, hand in torch.load(path, weights_only=False)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise DecodeError(
            f"{what} is damaged or no checkpoint ({_first(error)}); take another one"
        ) from error
    if not isinstance(held, Mapping):
        raise DecodeError(f"{what} is no Lightning checkpoint: it holds a {type(held).__name__}")
    return what, held


def _first(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
