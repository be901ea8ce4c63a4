"""Values as they are written in Python source."""

import math
from typing import Any

import torch

_PLAIN = (bool, int, float, str, type(None), type(...))
_OF_TORCH = (torch.dtype, torch.memory_format, torch.layout)


def is_literal(value: object) -> bool:
    """Whether :func:`literal` can write ``value``."""
    if isinstance(value, tuple | list):
        return all(is_literal(each) for each in value)
    if isinstance(value, dict):
        return all(is_literal(each) for item in value.items() for each in item)
    if isinstance(value, slice):
        return all(is_literal(each) for each in (value.start, value.stop, value.step))
    return type(value) in (*_PLAIN, *_OF_TORCH, torch.device)


def literal(value: Any) -> str:
    """An expression of ``value`` that needs no other name than ``torch``.

    >>> literal((1, [float("inf")], slice(None, 2), {"dtype": torch.float16}))
    "(1, [float('inf')], slice(None, 2, None), {'dtype': torch.float16})"
    """
    if isinstance(value, tuple):
        return f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    if isinstance(value, slice):
        return f"slice({', '.join(map(literal, (value.start, value.stop, value.step)))})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    return "..." if value is ... else repr(value)
