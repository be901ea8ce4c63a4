"""Writes docs/blueprints.md and its pictures from the catalogue: python docs/figures/blueprints.py.

What a card says comes from the metadata of its row and the formulas of its class; what it shows is
found by running the branch, so that neither can tell anything else.
"""

import inspect
import re
from pathlib import Path

import torch
from blueprints_drawn import drawn
from blueprints_traced import sizes, traced

from esper_lightning.karn import CATALOGUE, Blueprint, Tier
from esper_lightning.karn.catalogue import OWN_PREFIX
from esper_lightning.leyline import Attachment, FeatureKind, FeatureMap, SlotShape

DOCS = Path(__file__).parents[1]

EXAMPLES = {
    kind: SlotShape(FeatureMap(kind, each), FeatureMap(kind, each))
    for kind, each in {
        FeatureKind.SPATIAL: (32, 16, 16),
        FeatureKind.TOKENS: (64, 32),
        FeatureKind.VECTOR: (64,),
    }.items()
}
"""The slot for which costs are told."""

HEAD = """# Blueprints

What can be planted: {count} blueprints, each with what it computes, what it costs and where it
comes from. This page and its pictures are written by `docs/figures/blueprints.py` from
[the catalogue](api/karn.md).

A branch in series reads the output `h` of its slot, a parallel one the input `x` of the wrapped
module; what it returns is added to the slot's output, see [how a network grows](concepts.md). Costs
are those of one sample at the default parameters, in a slot that keeps its shape: {shapes}.
Weights are trainable numbers; a multiply-add of a convolution or a matrix product is two FLOPs,
everything else is none.

The pictures show the operations of a branch that was built and run in the first such slot that it
takes. What only moves numbers (a reshape, a transposition, a slice) is left out. Blue is learned,
yellow is learned and 0 at birth, grey is fixed.
"""

TIERS = {
    Tier.PRODUCTION: ("Production", "Offered by default."),
    Tier.EXPERIMENTAL: ("Experimental", "Offered to who asks for this tier."),
    Tier.ADVERSARIAL: (
        "Adversarial",
        "Built to do harm, for drills only. Each is healthy for `onset` training passes; the "
        "pictures show what it does after them.",
    ),
}
"""Their headings, and a line on each."""


def files() -> dict[Path, str]:
    """What is written where, relative to ``docs``."""
    rows = [row for row in CATALOGUE.values() if row.id.startswith(OWN_PREFIX)]
    return {Path("blueprints.md"): page(rows)} | {_picture_of(row): picture(row) for row in rows}


def _picture_of(row: Blueprint) -> Path:
    return Path(f"figures/blueprints/{row.id}.svg")


def page(rows: list[Blueprint]) -> str:
    """A table of all, and a card for each."""
    shapes = ", ".join(f"{_sizes(kind)} ({kind.value})" for kind in EXAMPLES)
    lines = [HEAD.format(count=len(rows), shapes=shapes)]
    lines += [
        "| blueprint | kinds | attachment | weights | risk | stage |",
        "|---|---|---|---:|---:|---:|",
        *map(_entry, rows),
    ]
    for tier, (heading, told) in TIERS.items():
        lines += ["", f"## {heading}", "", told]
        for row in rows:
            if row.tier is tier:
                lines += ["", *_card(row)]
    return "\n".join(lines) + "\n"


def _entry(row: Blueprint) -> str:
    weights = row.num_parameters(EXAMPLES[_kinds(row)[0]])
    cells = (
        f"[{row.id} {row.name}](#{row.id.lower()}-{row.name})",
        "all" if row.kinds == set(FeatureKind) else _told(_kinds(row)),
        row.attachment.value,
        f"{weights:,}",
        f"{row.risk:g}",
        str(row.curriculum_stage),
    )
    return f"| {' | '.join(cells)} |"


def _card(row: Blueprint) -> list[str]:
    cells = {
        "attachment": row.attachment.value,
        "kinds": _told(_kinds(row)),
        "tier": row.tier.value,
        "risk": f"{row.risk:g}",
        "stage": str(row.curriculum_stage),
        "approval": row.approval,
    }
    source = re.sub(r"arXiv:([\d.]+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", row.citation)
    costs = {kind: row.cost(EXAMPLES[kind]) for kind in _kinds(row)}
    return [
        f"### {row.id} {row.name}",
        "",
        _first_paragraph(row),
        "",
        f"![operations of {row.name}]({_picture_of(row)})",
        "",
        f"| {' | '.join(cells)} |",
        f"|{'---|' * len(cells)}",
        f"| {' | '.join(cells.values())} |",
        "",
        *(
            f"- Parameter `{name}`: {allowed}, default {allowed.default}"
            for name, allowed in row.parameters.items()
        ),
        *(
            f"- Cost at {_sizes(kind)}: {_number(weights, 'weight')}, {_number(flops, 'FLOP')}"
            for kind, (weights, flops) in costs.items()
        ),
        f"- Source: {source}",
    ]


def _told(kinds: list[FeatureKind]) -> str:
    return ", ".join(kind.value for kind in kinds)


def _number(count: int, of: str) -> str:
    return f"{count:,} {of}{'' if count == 1 else 's'}"


def _first_paragraph(row: Blueprint) -> str:
    """Of the docstring of its class, in the marks of Markdown."""
    told, _, _ = (inspect.getdoc(row.branch) or "").partition("\n\n")
    return re.sub(r"(?::\w+:)?`+~?([^`]+)`+", r"`\1`", " ".join(told.split()))


def picture(row: Blueprint) -> str:
    """The operations of its branch; of one that is built to harm, when it does."""
    shape = EXAMPLES[_kinds(row)[0]]
    parameters = {"onset": 0} if row.tier is Tier.ADVERSARIAL else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        branch = row.build(shape, parameters)
        name = "h" if row.attachment is Attachment.SERIES else "x"
        return drawn(traced(branch, row.branch.reads(shape), name), f"{row.id} {row.name}")


def _kinds(row: Blueprint) -> list[FeatureKind]:
    return [kind for kind in EXAMPLES if kind in row.kinds]


def _sizes(kind: FeatureKind) -> str:
    return sizes(EXAMPLES[kind].output.sizes)


if __name__ == "__main__":
    for place, text in files().items():
        (DOCS / place).parent.mkdir(exist_ok=True)
        (DOCS / place).write_text(text)
