"""Modules that return their own input, to which a branch cannot be added unnoticed."""

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


def version_of(tensor: object) -> int | None:
    """How often a tensor was written to; None where nobody counts (inference mode, no tensor)."""
    if not isinstance(tensor, Tensor) or tensor.is_inference():
        return None
    return tensor._version


def same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, or views of one."""
    return one is other or one.untyped_storage()._cdata == other.untyped_storage()._cdata


def passes_on(module: nn.Module, taken: object, version: int | None, returned: object) -> bool:
    """Whether a module without parameters returned its input, or a view of it, unchanged.

    ``nn.Identity``, ``nn.Flatten``; ``nn.Dropout`` does in evaluation, if not now. A host that
    works in place on the result changes the input too, and no longer does once a branch is added.

    Args:
        module: that was called; one with parameters may leave itself out of some passes.
        taken: its input.
        version: of the input before the call, from :func:`version_of`; None tells nothing.
        returned: its output.
    """
    if isinstance(module, _DropoutNd):
        return True
    if not isinstance(taken, Tensor) or not isinstance(returned, Tensor):
        return False
    unchanged = version is not None and taken._version == version
    if not unchanged or not same_memory(taken, returned):
        return False
    return next(module.parameters(), None) is None
