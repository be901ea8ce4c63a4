"""A grown network as a ``torch.export`` program: for inference, wherever torch is."""

import copy
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_map

from esper_lightning.kasmina.export.errors import NotExportable
from esper_lightning.kasmina.export.example import Example, builtin, difference, flat
from esper_lightning.kasmina.export.plain import plain
from esper_lightning.leyline import InvalidArgument

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def save_program(
    network: nn.Module, example: object, path: str | Path, *, with_seeds: bool = False
) -> Path:
    """Write ``network`` in eval mode as a program that ``torch.export.load`` reads.

    The batch size is free, every other size is that of the example. What was written is read again,
    and its outputs are those of the network within 1e-6 at two batch sizes, or nothing stays. The
    reader needs torch alone: ``torch.export.load(path).module()(x)``. Containers of an output
    become Python's own.

    Args:
        network: grown, in any mode; left as it is.
        example: a batch that it takes: a tensor, a tuple of arguments or a mapping of named ones.
        path: of the file, ending in ``.pt2``.
        with_seeds: keep live seeds as they stand, but for those that do not act on the output yet.

    Returns:
        ``path``.

    Raises:
        NotExportable: a seed is alive and ``with_seeds`` is not set, or torch cannot export the
            network; the text has its reason.
        InvalidArgument: an argument that is not allowed.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise InvalidArgument(f"path of a program must end in .pt2, got {str(path)!r}")
    sizes = Example.of(example).sizes()
    bare, original = plain(network, with_seeds=with_seeds), copy.deepcopy(network)
    expected = [given.through(original) for given in sizes]
    program = _exported(bare, sizes[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.unfinished.pt2")
    try:
        torch.export.save(program, unfinished)
        runs = torch.export.load(unfinished).module()
        for given, outputs in zip(sizes, expected, strict=True):
            found = difference(outputs, flat(given.call(runs)))
            if found:
                raise NotExportable(
                    f"the program of {type(network).__name__} does not do with {given.num_rows} "
                    f"rows what the network does: {found}"
                )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _exported(network: nn.Module, given: Example) -> "ExportedProgram":
    from torch.export import Dim, export

    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.contiguous()  # others are stored with a warning
    # So that no class but Python's own is needed to read what it returns.
    network.eval().register_forward_hook(lambda _module, _given, output: builtin(output))
    named = inspect.signature(network.forward).bind(*given.args, **given.kwargs).arguments
    size = Dim("batch")
    free = tree_map(lambda value: {0: size} if given.is_batch(value) else None, named)
    try:
        program = export(network, given.args, given.kwargs, dynamic_shapes=free, strict=False)
    except Exception as error:  # anything may go wrong in a stranger's forward pass
        raise NotExportable(
            f"torch.export cannot export {type(network).__name__} with a batch of any size: {error}"
        ) from error
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # places in the files of this machine
    return program
