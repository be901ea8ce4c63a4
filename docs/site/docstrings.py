"""An extension of Griffe: cross references and tables of docstrings, as Markdown writes them.

Docstrings say ``:class:`~package.Name```, which editors understand, and draw tables of ``===``.
"""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|attr|mod|data):`(~?)([\w.]+)`")
_RULE = re.compile(r"^ *=+( +=+)+ *$")
_SESSION = re.compile(r"^( *)>>> .*(?:\n(?! *\n).*)*", re.MULTILINE)


class Roles(Extension):
    """Rewrites docstrings as Markdown before they are parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            text = _ROLE.sub(_reference, obj.docstring.value)
            obj.docstring.value = tables(_SESSION.sub(_fenced, text))


def _reference(role: re.Match[str]) -> str:
    """A link where the name has a place in the API, else a word."""
    short, path = role[1], role[2]
    shown = path.rpartition(".")[2] if short else path
    return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'


def _fenced(session: re.Match[str]) -> str:
    """An example of the interpreter as a block of code."""
    indent = session[1]
    return f"{indent}```pycon\n{session[0]}\n{indent}```"


def tables(text: str) -> str:
    """Tables that are ruled with ``===`` as tables of Markdown."""
    lines = text.splitlines()
    written: list[str] = []
    while lines:
        line = lines.pop(0)
        if not _RULE.match(line):
            written.append(line)
            continue
        starts = [match.start() for match in re.finditer(r"=+", line)]
        block: list[str] = []
        rules = 1
        while lines and rules < 3:
            block.append(lines.pop(0))
            rules += bool(_RULE.match(block[-1]))
        written += _markdown(block, starts)
    return "\n".join(written)


def _markdown(block: list[str], starts: list[int]) -> list[str]:
    ends = [*starts[1:], None]
    rows: list[list[str]] = []
    for line in block:
        if _RULE.match(line):
            continue
        cells = [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        if cells[0] or not rows:
            rows.append(cells)
        else:  # the rest of a cell that takes several lines
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells, strict=True)]
    told = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [told[0], f"|{'---|' * len(starts)}", *told[1:]]
