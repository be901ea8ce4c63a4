import html
import random
import re
from collections.abc import Callable
from typing import Any

import markdown
import msgspec
import pytest
from markdown_it import MarkdownIt
from told_run import LIVE, RUN_ID, decision, grown_run, intervened, reported, state

from esper_lightning.leyline import (
    CommandKind,
    Event,
    PolicyChanged,
    PolicyStep,
    Risk,
    RiskLevel,
    RunEnded,
)
from esper_lightning.nissa.explanation import explanation
from esper_lightning.nissa.explanation.markdown import MOST_CHARACTERS, code, number, plain, quoted

EXTENSIONS = ["admonition", "attr_list", "tables", "pymdownx.highlight", "pymdownx.superfences"]
SITE = markdown.Markdown(extensions=EXTENSIONS)
COMMON = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def of_the_site(text: str) -> str:
    SITE.reset()
    return SITE.convert(text)


READERS = [pytest.param(of_the_site, id="site"), pytest.param(COMMON.render, id="code host")]
HOSTILE = [
    *("`", "```", "*", "**", "_", "__", "~", "~~", "|", "\\", "$", "{", "}", "[", "]", "(", ")"),
    *("[x](http://e.org)", "![x](y)", "<b>", "<script>", "</b>", "<!--", "-->", "&lt;", "&#35;"),
    *("# h", "#", "- ", "+ ", "1. ", "> ", "!!! note", "{: .x}", "{ #id }", "---", "===", ":::"),
    *("\n", "\n\n", "\t", "    ", "\x00", "\x1b[31m", "\u202e", "http://e.org", "<a@e.org>"),
    *("a", "b_c", "features.1", "3 < 4", ">= 5", "é", "\N{SEEDLING}", "'", '"', "&", "^", "%"),
]
MARKUP = {
    *("h1", "h2", "h3", "p", "ul", "li", "strong", "em", "code", "pre", "span", "div", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
"""That the page itself has; the site's reader numbers the lines of code with spans and anchors."""


def shown(rendered: str) -> str:
    """The text that a browser shows."""
    return plain(html.unescape(re.sub(r"<[^>]*>", "", rendered)))


def some(rng: random.Random) -> str:
    return "".join(rng.choice(HOSTILE) for _ in range(rng.randint(1, 6)))


@pytest.mark.parametrize("render", READERS)
@pytest.mark.parametrize(
    "around", ["- Why: {0}.\n", "- {0}\n", "| a |\n| --- |\n| {0} |\n", "Waited: {0} {0}\n"]
)
def test_what_is_quoted_is_shown_as_it_stands(render: Callable[[str], str], around: str) -> None:
    rng = random.Random(0)
    for text in (some(rng) for _ in range(400)):
        rendered = render(f"before\n\n{around.format(quoted(text))}")
        tags = set(re.findall(r"<([a-z0-9]+)", rendered))
        assert tags <= {"p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}, text
        assert plain(text) in shown(rendered), text


@pytest.mark.parametrize("render", READERS)
def test_a_name_is_shown_as_it_stands(render: Callable[[str], str]) -> None:
    rng = random.Random(1)
    for name in (some(rng) for _ in range(400)):
        rendered = render(f"| a | b |\n| --- | --- |\n| {code(name)} | Slot {code(name)}. |\n")
        assert rendered.count("<td") == 2
        assert set(re.findall(r"<([a-z0-9]+)", rendered)) <= MARKUP - {"a", "em", "strong"}
        assert plain(name) in shown(rendered) or not plain(name), name


def hostile(value: Any, rng: random.Random, key: str = "") -> Any:
    """Plain data of a record in which every text that a user or a policy gives is replaced."""
    if isinstance(value, dict):
        named = key in ("versions", "metrics", "deltas", "parameters", "test")
        return {
            (some(rng) if named else name): hostile(each, rng, str(name))
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [hostile(each, rng, key) for each in value]
    free = ("reason", "blueprint", "policy", "alarm", "suspects", "name", "mitigations", "slots")
    if isinstance(value, str) and key in (*free, "unit", "slot", "refused", "host", "incubation"):
        return some(rng) if value else value
    return value


@pytest.mark.parametrize("render", READERS)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_in_a_record_becomes_markup(render: Callable[[str], str], seed: int) -> None:
    rng = random.Random(seed)
    change = PolicyChanged(
        run_id=RUN_ID, epoch=5, policy="p", step=PolicyStep.REFUSED, before=1, after=1, offered=2
    )
    risk = Risk(level=RiskLevel.RED, reason="why")
    events = [
        *grown_run()[:-4],
        *(intervened(5), decision(5, CommandKind.CULL, refused="no"), change),
        *(state(5, LIVE), decision(5, CommandKind.PAUSE, risk=risk)),
        reported("5/pause", mitigations=("paused",)),
    ]
    plain_data = hostile(msgspec.to_builtins(events), rng)
    told: list[Event] = msgspec.convert(plain_data, list[Event])
    told.append(
        RunEnded(run_id=RUN_ID, epoch=6, step=60, outcome=f"failed: {some(rng)}\n# {some(rng)}")
    )
    rendered = render(explanation(told))
    assert set(re.findall(r"<([a-z0-9]+)", rendered)) <= MARKUP
    assert not re.search(r"<[^>]*\b(?:href=\"(?!#)|src|on\w+)=?", rendered)
    calm = render(explanation(grown_run()))
    assert rendered.count("<h2") >= calm.count("<h2")
    for each in re.findall(r"<table>.*?</table>", rendered, re.DOTALL):
        head, *rows = (re.findall(r"<t[hd][ >]", row) for row in each.split("<tr>")[1:])
        assert all(len(row) == len(head) for row in rows)


def test_a_long_text_is_cut_and_a_long_name_is_quoted() -> None:
    assert len(quoted("word " * 1000)) == MOST_CHARACTERS
    assert quoted("word " * 1000).endswith("…")
    assert not code("x" * 1000).startswith("`")


@pytest.mark.parametrize("digits", range(-12, 18))
def test_a_number_keeps_three_digits(digits: int) -> None:
    for value in (1.2345, -9.876, 9.9951):
        told = float(number(value * 10.0**digits).replace(",", ""))
        assert told == pytest.approx(value * 10.0**digits, rel=5.1e-3)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        *((None, "not measured"), (float("nan"), "NaN"), (float("inf"), "infinite")),
        *((float("-inf"), "minus infinite"), (0.0, "0"), (-0.0, "0"), (999.4, "999")),
        *((999.6, "1,000"), (1e6, "1,000,000"), (0.5, "0.500")),
    ],
)
def test_a_number_reads_well(value: float | None, told: str) -> None:
    assert number(value) == told
