"""Batches of modules that nothing is known of."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils._pytree import tree_leaves

from esper_lightning.kasmina import probing


def run_example(module: LightningModule) -> object:
    """A forward pass of ``module`` on its ``example_input_array``, which must be there."""
    example: Any = module.example_input_array
    if isinstance(example, Mapping):
        return module(**example)
    return module(*example) if isinstance(example, tuple) else module(example)


def probe_example(module: LightningModule) -> bool:
    """Run a module on its example once, leaving no trace; False where it has none."""
    if module.example_input_array is None:
        return False
    with probing(module):
        run_example(module)
    return True


def num_rows(batch: Any) -> int:
    """Rows of the first tensor of a batch, 1 where there is none."""
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], Tensor) and batch[0].ndim:
        return int(batch[0].shape[0])
    tensors = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim)
    return next((int(tensor.shape[0]) for tensor in tensors), 1)
