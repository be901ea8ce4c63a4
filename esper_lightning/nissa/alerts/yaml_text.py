"""Writes plain data as YAML, block style; enough for files that Prometheus and its like read."""

import json
import re
from collections.abc import Mapping, Sequence

Plain = Mapping[str, "Plain"] | Sequence["Plain"] | str | int | float | bool | None
"""What can be written."""

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def yaml_text(value: Plain) -> str:
    """A YAML document; a text that could be taken for something else is quoted.

    >>> print(yaml_text({"groups": [{"name": "a", "for": "5m"}], "empty": []}), end="")
    groups:
      - name: a
        for: "5m"
    empty: []
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Plain) -> list[str]:
    if isinstance(value, Mapping) and value:
        lines = []
        for key, item in value.items():
            lines += _entry(f"{_scalar(key)}:", item, indent="  ")
        return lines
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        lines = []
        for item in value:
            first, *rest = _lines(item)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines
    return [_scalar(value)]


def _entry(key: str, item: Plain, *, indent: str) -> list[str]:
    if isinstance(item, Mapping | Sequence) and not isinstance(item, str) and item:
        return [key, *(indent + line for line in _lines(item))]
    return [f"{key} {_scalar(item)}"]


def _scalar(value: Plain) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
