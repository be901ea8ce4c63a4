"""Markdown of what a record holds: nothing that is quoted can become markup, numbers read well."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from esper_lightning.leyline import ParameterValue
from esper_lightning.nissa.quantities import is_accuracy

MISSING = "not measured"
"""What stands where a value is missing."""

MOST_CHARACTERS = 600
"""Of one quoted text: reasons are sentences, and what is longer buries the page."""

_ENTITIES = {"&": "&amp;", "<": "&lt;", "|": "&#124;", "~": "&#126;", "$": "&#36;"}
"""For what not every reader of Markdown takes a backslash before."""

_SPECIAL = re.compile(
    r"""[\\`*\[\]{}|~$]   # code, emphasis, links, attributes, cells, strikes, formulas
    |(?<![^\W_])_|_(?![^\W_])  # emphasis; within a word it is a letter
    |<(?=[A-Za-z/!?])     # a tag
    |&(?=\#?\w+;)         # an entity
    """,
    re.VERBOSE,
)
_BEGINS_A_BLOCK = re.compile(r"^(?:[#>+!-]|\d+[.)](?=\s|$))")


def plain(text: str) -> str:
    r"""``text`` on one line, of what can be printed.

    >>> plain("one\n\ttwo\x1b")
    'one two'
    """
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def quoted(text: str) -> str:
    r"""``text`` on one line, such that Markdown shows it as it stands.

    >>> quoted("gain 3% < rent; see [this](x) and `that`")
    'gain 3% < rent; see \\[this\\](x) and \\`that\\`'
    """
    line = plain(text)
    if len(line) > MOST_CHARACTERS:
        line = line[: MOST_CHARACTERS - 1].rstrip() + "…"
    line = _SPECIAL.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), line)
    line = line.replace("://", ":&#47;/")  # a bare address would become a link
    return _BEGINS_A_BLOCK.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)


def sentence(text: str) -> str:
    """``text`` quoted, with a full stop.

    >>> sentence("a plateau"), sentence("what now?")
    ('a plateau.', 'what now?')
    """
    line = quoted(text)
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."


def code(name: str) -> str:
    """A name in backticks; quoted where backticks could not hold it.

    >>> code("features.1"), code("")
    ('`features.1`', '(no name)')
    """
    if not name.strip():
        return "(no name)"
    fits = name.isprintable() and name == name.strip() and len(name) <= MOST_CHARACTERS
    return f"`{name}`" if fits and not set("`|\\") & set(name) else quoted(name)


def codes(names: Iterable[str]) -> str:
    """Names in backticks, listed.

    >>> codes(["a", "b", "c"])
    '`a`, `b` and `c`'
    """
    return listed([code(name) for name in names])


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence, with a comma between them and the last by ``and``.

    >>> listed([]), listed(["one"]), listed(["one", "two"])
    ('none', 'one', 'one and two')
    """
    if len(parts) < 2:
        return parts[0] if parts else "none"
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def blueprint(name: str, parameters: Mapping[str, ParameterValue]) -> str:
    """A blueprint with the parameters of its constructor, in backticks.

    >>> blueprint("low_rank", {"rank": 8, "gain": 0.5})
    '`low_rank(rank=8, gain=0.5)`'
    """
    told = ", ".join(f"{key}={_value(value)}" for key, value in parameters.items())
    return code(f"{name}({told})" if told else name)


def _value(value: ParameterValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def grouped(facts: Iterable[tuple[str, str]]) -> list[str]:
    """Facts about slots; what is the same of several is said once.

    Args:
        facts: slot and what stands behind its name.

    >>> grouped([("a", ": waits."), ("b", " grows."), ("c", ": waits.")])
    ['`a` and `c`: waits.', '`b` grows.']
    """
    slots: dict[str, list[str]] = {}
    for slot, fact in facts:
        slots.setdefault(fact, []).append(slot)
    return [f"{codes(names)}{fact}" for fact, names in slots.items()]


def number(value: float | None, *, sign: bool = False) -> str:
    """Three significant digits, whole from 1,000 on, with separators of thousands.

    >>> number(0.31863), number(0.3), number(1.0), number(12345.6), number(-4.2e-9), number(None)
    ('0.319', '0.300', '1', '12,346', '-4.20e-09', 'not measured')
    >>> number(0.0521, sign=True)
    '+0.0521'
    """
    if value is None or math.isnan(value):
        return MISSING if value is None else "NaN"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    value += 0.0  # a negative zero loses its sign
    plus = "+" if sign else ""
    if abs(value) >= 1e15:
        return format(value, f"{plus}.3g")
    if abs(value) >= 999.5 or float(f"{value:.6g}").is_integer():
        return format(value, f"{plus},.0f")
    return format(value, f"{plus}#.3g").rstrip(".")


def percent(share: float | None, *, sign: bool = False) -> str:
    """A share as a percentage.

    >>> percent(0.3179673), percent(0.0), percent(-0.05), percent(None)
    ('31.8 %', '0 %', '-5 %', 'not measured')
    """
    if share is None or not math.isfinite(share):
        return number(share)
    return f"{number(100 * share, sign=sign)} %"


def metric(name: str, value: float | None) -> str:
    """A metric's value: an accuracy from 0 to 1 as a percentage.

    >>> metric("val/acc", 0.94123), metric("val/loss", 0.41237), metric("val/loss", None)
    ('94.1 %', '0.412', 'not measured')
    """
    if value is not None and is_accuracy(name) and 0 <= value <= 1:
        return percent(value)
    return number(value)


def delta(name: str, value: float) -> str:
    """A difference of a metric: of an accuracy in points.

    >>> delta("val/acc", 0.0123), delta("val/loss", -0.0521)
    ('+1.23 points', '-0.0521')
    """
    if is_accuracy(name) and abs(value) <= 1:
        return f"{number(100 * value, sign=True)} points"
    return number(value, sign=True)


def plural(count: int, word: str) -> str:
    """A count and its word.

    >>> plural(1, "seed"), plural(2000, "seed"), plural(2, "process")
    ('1 seed', '2,000 seeds', '2 processes')
    """
    if count != 1:
        word += "es" if word.endswith("s") else "s"
    return f"{count:,} {word}"


def epochs(first: int, last: int) -> str:
    """0-based epochs as people count them.

    >>> epochs(0, 0), epochs(6, 8)
    ('epoch 1', 'epochs 7 to 9')
    """
    return f"epoch {first + 1}" if first == last else f"epochs {first + 1} to {last + 1}"


def capital(text: str) -> str:
    """``text`` with its first letter as a sentence begins."""
    return text[:1].upper() + text[1:]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines; a column in which no row says anything is left out.

    Args:
        head: titles; one that begins with ``>`` stands over figures, to the right.
        rows: cells, of Markdown.
    """
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells[column] for column in kept)} |"

    rule = "".join("---: | " if head[column].startswith(">") else "--- | " for column in kept)
    titles = line([title.removeprefix(">") for title in head])
    return [titles, f"| {rule.rstrip()}", *map(line, rows)]
