"""The host's parameter groups."""

import math
from typing import Any

from torch import nn

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number


def check_weight_decay(weight_decay: float) -> None:
    """Refuse what no weight can decay by.

    Raises:
        InvalidArgument: it is no number, negative or not finite.
    """
    check_number("weight_decay", weight_decay)
    if not math.isfinite(weight_decay) or weight_decay < 0:
        raise InvalidArgument(f"weight_decay must be finite and at least 0, got {weight_decay}")


def host_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups ``host/decay`` and ``host/no_decay`` of a model, in this order.

    Matrices and kernels (two dimensions or more) decay; biases, norms and scales do not. Within a
    group the order is that of ``model.named_parameters()``. A frozen parameter is listed too, so
    that it trains when somebody unfreezes it, and both groups are always there, so that the
    positions of optimiser state in a checkpoint do not depend on the model.

    Args:
        model: the host.
        weight_decay: of the decaying group, at least 0.

    Raises:
        InvalidArgument: ``weight_decay`` is negative or not finite, or the model has no parameters.
    """
    check_weight_decay(weight_decay)
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decay if parameter.ndim >= 2 else no_decay).append(parameter)
    if not decay and not no_decay:
        raise InvalidArgument(
            f"{type(model).__name__} has no parameters to train; hand in a host that has some"
        )
    return [
        {"name": "host/decay", "params": decay, "weight_decay": weight_decay},
        {"name": "host/no_decay", "params": no_decay, "weight_decay": 0.0},
    ]
