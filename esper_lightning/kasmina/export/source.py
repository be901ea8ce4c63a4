"""A grown network as source that needs torch alone, with its weights: to train it further."""

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path

from torch import nn
from torch.fx import Graph

from esper_lightning.kasmina.export.check import check
from esper_lightning.kasmina.export.constructors import constructor
from esper_lightning.kasmina.export.errors import NotExportable
from esper_lightning.kasmina.export.example import Example
from esper_lightning.kasmina.export.members import Members
from esper_lightning.kasmina.export.plain import grown_on, plain
from esper_lightning.kasmina.export.statements import Statements
from esper_lightning.kasmina.export.tracing import DataDependent, trace
from esper_lightning.kasmina.random_stream import undisturbed_random

SOURCE_NAME = "network.py"
WEIGHTS_NAME = "weights.safetensors"

_MODULE = '''\
"""A network that grew while it trained, in plain PyTorch: written by esper_lightning.

``build()`` makes it, with the weights of {weights} beside this file.
{grown}"""

{math}from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


class Network(nn.Module):
    """{title}, with all that has grown on it."""

    def __init__(self):
        super().__init__(){declarations}

{forward}


def build(weights=Path(__file__).with_name("{weights}")):
    """The network with its weights, in training mode."""
    from safetensors.torch import load_file

    network = Network()
    network.load_state_dict(load_file(weights))
    return network
'''


def save_source(
    network: nn.Module, example: object, folder: str | Path, *, with_seeds: bool = False
) -> Path:
    """Write ``network`` as ``network.py`` and ``weights.safetensors``.

    The source needs torch alone, its ``build()`` safetensors too. What it makes trains as the
    network does: dropout and BatchNorm follow ``train()`` and ``eval()``, gradients are the same,
    what was frozen is. Its class is flat: modules of torch.nn, with names made from their paths.

    The forward pass is traced on the example, at two batch sizes and in both modes. Before anything
    is written the outputs are compared (within 1e-6), and the gradients.

    Args:
        network: grown, in any mode; left as it is.
        example: a batch that it takes: a tensor, a tuple of arguments or a mapping of named ones.
            Other tensors in their place are what the written forward pass takes; the rest is fixed.
        folder: to write to; made where it is not there, files of the two names are replaced.
        with_seeds: keep live seeds as they stand, but for those that do not act on the output yet;
            their isolation ends.

    Returns:
        The path of ``network.py``.

    Raises:
        NotExportable: a seed is alive and ``with_seeds`` is not set, or the forward pass cannot be
            written down; the text has the reason.
        InvalidArgument: an argument that is not allowed.
    """
    sizes = Example.of(example).sizes()
    bare, original = plain(network, with_seeds=with_seeds), copy.deepcopy(network)
    expected = [given.through(original) for given in sizes]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with _told_of(network):
            parameters = _write(bare, sizes, place)
            check(_built(place), parameters, bare, sizes, expected)
        return _moved(place, Path(folder))


@contextmanager
def _told_of(network: nn.Module) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # anything may go wrong in a stranger's forward pass
        known = isinstance(error, NotExportable | DataDependent)
        raise NotExportable(
            f"{type(network).__name__} cannot be written as source: "
            f"{error if known else repr(error)}; save_program may export it, for inference"
        ) from error


def _write(network: nn.Module, sizes: Sequence[Example], folder: Path) -> dict[str, str]:
    """Write both files; the names of parameters in the network by those in the written one."""
    from safetensors.torch import save_file

    texts = {module: constructor(module) for module in network.modules()}
    constructors = {module: text for module, text in texts.items() if text is not None}
    leaves = {path for path, module in network.named_modules() if module in constructors}
    graphs = [[_graph(network, leaves, mode, each) for each in sizes] for mode in (True, False)]
    members = Members(network, constructors, [at_both[0] for at_both in graphs])
    training, evaluation = (
        _at_any_size([Statements(graph, members) for graph in at_both]) for at_both in graphs
    )
    if training.lines == evaluation.lines:
        forward = _method("forward", training)
    else:
        takes = ", ".join(training.arguments)
        choice = f"return self._training({takes}) if self.training else self._evaluation({takes})"
        forward = "\n\n".join(
            [
                f"    def forward(self, {takes}):\n        {choice}",
                _method("_training", training),
                _method("_evaluation", evaluation),
            ]
        )
    grown = "".join(f"    {line}\n" for line in grown_on(network))
    text = _MODULE.format(
        weights=WEIGHTS_NAME,
        grown=f"\nGrown on it:\n\n{grown}" if grown else "",
        title=type(network).__name__,
        declarations="".join(f"\n        {line}" for line in members.declarations),
        forward=forward,
        math="import math\n" if "math." in forward else "",
    )
    (folder / SOURCE_NAME).write_text(text)
    save_file(members.weights, folder / WEIGHTS_NAME)
    return members.parameters


def _graph(network: nn.Module, leaves: set[str], training: bool, example: Example) -> Graph:
    traced = copy.deepcopy(network).train(training)
    inside = {module for path, module in traced.named_modules() if path in leaves}
    return trace(traced, example, is_leaf=inside.__contains__)


def _at_any_size(written: Sequence[Statements]) -> Statements:
    first, second = written
    if first.lines != second.lines:
        pairs = zip(first.lines, second.lines, strict=False)
        line, other = next((pair for pair in pairs if pair[0] != pair[1]), ("more", "less"))
        raise NotExportable(f"its forward pass depends on the batch size: {line!r} or {other!r}")
    return first


def _method(name: str, statements: Statements) -> str:
    head = f"    def {name}({', '.join(['self', *statements.arguments])}):\n"
    return head + "\n".join(f"        {line}" for line in statements.lines)


def _built(folder: Path) -> nn.Module:
    with undisturbed_random():
        network: nn.Module = run_path(str(folder / SOURCE_NAME))["build"]()
    return network


def _moved(place: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS_NAME, SOURCE_NAME):
        unfinished = folder / f".{name}.unfinished"
        shutil.copyfile(place / name, unfinished)
        os.replace(unfinished, folder / name)
    return folder / SOURCE_NAME
