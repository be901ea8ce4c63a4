"""What is observed of a layer of the host."""

from collections.abc import Mapping, Sequence
from enum import Enum

from esper_lightning.leyline import LayerState
from esper_lightning.tamiyo.observation.scales import Features, count, log_ratio, one_hot, ratio


class Family(Enum):
    """What kind of module it is, as its class name tells; ``OTHER`` where it tells nothing.

    The value is a part of the names of such classes, in lower case.
    """

    CONVOLUTION = "conv"
    LINEAR = "linear"
    NORM = "norm"
    ATTENTION = "attention"
    EMBEDDING = "embedding"
    OTHER = ""


def family(module: str) -> Family:
    """The first family whose part the class name has.

    >>> family("NonDynamicallyQuantizableLinear"), family("Block")
    (<Family.LINEAR: 'linear'>, <Family.OTHER: ''>)
    """
    name = module.lower()
    return next(each for each in Family if each.value in name)


def features(
    layer: LayerState | None, place: int, layers: Sequence[LayerState], host_parameters: int
) -> Features:
    """Of one layer; of what is none, all of them missing.

    Args:
        layer: which.
        place: in ``layers``.
        layers: all of the host's.
        host_parameters: of the host before any growth.
    """
    there = layer is not None
    readers = sum(layer.path in each.reads for each in layers) if layer is not None else None
    return {
        "place": ratio(place, max(1, len(layers) - 1)) if there else None,
        "layer_parameters": log_ratio(layer.num_parameters, host_parameters) if layer else None,
        "reads": count(len(layer.reads)) if layer else None,
        "readers": count(readers),
        "nesting": count(nesting(layer)) if layer else None,
        **one_hot("module", Family, family(layer.module) if layer else None),
    }


def nesting(layer: LayerState) -> int:
    """How many modules it lies within."""
    return layer.path.count(".")


def by_path(layers: Sequence[LayerState]) -> Mapping[str, int]:
    """The place of each, of the first where two have one path."""
    return {layers[place].path: place for place in reversed(range(len(layers)))}


NAMES = tuple(features(None, 0, (), 0))
"""Of the features, in their order."""
