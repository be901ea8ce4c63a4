"""What a seed is made of: a branch, and the function that builds one."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esper_lightning.kasmina.faster import output_of
from esper_lightning.leyline import Attachment, ParameterValue, SlotShape


class Branch(nn.Module):
    """A module whose output is added to a slot's output.

    A series branch reads the slot's output and returns the same shape. A parallel branch reads the
    input of the wrapped module and returns the shape of its output; on spatial maps it may be off
    by the rounding of a stride, the slot then pools it to size.

    Attributes:
        attachment: where it reads.
        zero_at_birth: its output is exactly 0 until its first update, so that inserting it changes
            nothing.
    """

    attachment: ClassVar[Attachment]
    zero_at_birth: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of feature maps to a batch of feature maps.

        Args:
            x: ``(B, C, H, W)``, ``(B, T, D)`` or ``(B, D)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward")


BuildBranch = Callable[[str, Mapping[str, ParameterValue], SlotShape], Branch]
"""``build(name, parameters, shape)``: construct a named blueprint for a slot. Must be picklable (a
module-level function), draw its initial weights from the global torch generator only, and raise
``UnknownBlueprint`` or ``InvalidArgument`` for what it cannot build."""


def branch_output(branch: nn.Module, x: Tensor, h: Tensor) -> Tensor:
    """One branch's output at its attachment point, fitted to the slot's output in size and dtype.

    A branch has the dtype of the host's weights at the slot. Where a feature map has another, the
    branch is fed in its own; under autocast that is autocast's affair.

    Args:
        branch: what has grown.
        x: input of the wrapped module, which a parallel branch reads.
        h: the slot's output, which a series branch reads.
    """
    series = getattr(branch, "attachment", None) is Attachment.SERIES
    output = output_of(branch, _fed(h if series else x, branch))
    if output.ndim == 4 and output.shape[2:] != h.shape[2:]:
        output = F.adaptive_avg_pool2d(output, (h.shape[2], h.shape[3]))
    return output.to(h.dtype)


def _fed(tensor: Tensor, branch: nn.Module) -> Tensor:
    own = next((p for p in branch.parameters() if p.is_floating_point()), None)
    if own is None or tensor.dtype == own.dtype:
        return tensor
    # Autocast leaves float64 as it is.
    is_cast = torch.is_autocast_enabled(own.device.type)
    if is_cast and torch.float64 not in (tensor.dtype, own.dtype):
        return tensor
    return tensor.to(own.dtype)
