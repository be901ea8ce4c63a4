"""The objective over the epochs: as one line of text, and as a table."""

from collections import Counter
from collections.abc import Iterable, Sequence

from esper_lightning.leyline import CommandKind, SystemState
from esper_lightning.nissa.explanation.boundary import DEEDS
from esper_lightning.nissa.explanation.markdown import code, metric, number, plain, plural, table
from esper_lightning.nissa.explanation.story import Chapter, Story
from esper_lightning.nissa.quantities import flops, is_accuracy

MOST_ROWS = 30
"""Of the table: of a longer run, epochs in which nothing was done are left out."""

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = 72
"""Epochs in one line of the curve, so that it fits a terminal."""

_MOST_METRICS = 3
"""Beside the objective."""

_MARKS = {
    CommandKind.GERMINATE: "P",
    CommandKind.FOSSILIZE: "F",
    CommandKind.CULL: "C",
    CommandKind.EMERGENCY: "C",
    CommandKind.PRUNE: "C",
}
"""One letter for each decision that changes the network, in the order of what counts most."""


def curve(told: Story) -> list[str]:
    """The section on the course of the run; nothing where no epoch ended."""
    states = {state.epoch: state for state in told.states}
    if not states:
        return ["No epoch ended, so that nothing was decided.", ""]
    chapters: dict[int, list[Chapter]] = {}
    for chapter in told.chapters:
        if chapter.epoch >= 0:
            chapters.setdefault(chapter.epoch, []).append(chapter)
    epochs = range(min(chapters), max(chapters) + 1)
    return [
        "## The curve",
        "",
        "```text",
        *_lines(epochs, states, chapters),
        "```",
        "",
        "One column for each epoch, high for large. P planted, F made permanent, C culled or "
        "pruned, G the governor stepped in, x refused, . waited.",
        "",
        *_table(told, epochs, states, chapters),
        "",
    ]


def spark(values: Sequence[float | None]) -> str:
    """A curve of one character for each value, from the lowest to the highest.

    >>> spark([0.0, 1.0, None, 3.5, 7.0])
    '▁▂ ▅█'
    """
    there = [value for value in values if value is not None]
    low, span = (min(there), max(there) - min(there)) if there else (0.0, 0.0)
    top = len(_BARS) - 1
    return "".join(
        " " if value is None else _BARS[round((value - low) / span * top) if span else 0]
        for value in values
    )


def _lines(
    epochs: range, states: dict[int, SystemState], chapters: dict[int, list[Chapter]]
) -> Iterable[str]:
    last = states[max(states)]
    name = last.objective.name
    objective = [states[e].objective.value if e in states else None for e in epochs]
    sizes = [float(states[e].num_parameters) if e in states else None for e in epochs]
    marks = "".join(_mark(chapters.get(epoch, [])) for epoch in epochs)
    found = [value for value in objective if value is not None]
    ends = f"{metric(name, found[0])} → {metric(name, found[-1])}" if found else "not measured"
    grown = f"{number(states[min(states)].num_parameters)} → {number(last.num_parameters)}"
    rows = [(plain(name), spark(objective), ends), ("parameters", spark(sizes), grown)]
    rows.append(("decisions", marks, ""))
    width = max(len(title) for title, _, _ in rows)
    for start in range(0, len(epochs), _COLUMNS):
        if start:
            yield ""
        for title, line, ends in rows:
            part = line[start : start + _COLUMNS]
            yield f"{title:{width}}  {part}  {'' if start else ends}".rstrip()


def _mark(chapters: Sequence[Chapter]) -> str:
    """What was done in an epoch, in one letter; a space where nobody decided."""
    acts = [act for chapter in chapters for act in chapter.governed + chapter.acts]
    if any(chapter.interventions or chapter.rollbacks for chapter in chapters):
        return "G"
    done = {act.decision.command.kind for act in acts if not act.decision.refused}
    for kind, letter in _MARKS.items():
        if kind in done:
            return letter
    if any(act.decision.refused for act in acts):
        return "x"
    return "." if acts else " "


def _table(
    told: Story,
    epochs: range,
    states: dict[int, SystemState],
    chapters: dict[int, list[Chapter]],
) -> list[str]:
    last = states[max(states)]
    names = _metrics(last)
    undone = told.undone
    done = {epoch: _done(chapters.get(epoch, []), undone.get(epoch)) for epoch in epochs}
    kept = _kept(epochs, done)
    rows = [
        (
            str(epoch + 1),
            *_values(states.get(epoch), [last.objective.name, *names]),
            done[epoch] or "waited",
        )
        for epoch in kept
    ]
    head = ["epoch", f">{code(last.objective.name)}", *(f">{code(name)}" for name in names)]
    head += [">parameters", ">training FLOPs so far", "what was done"]
    lines = table(head, rows)
    if len(kept) < len(epochs):
        lines += ["", f"{plural(len(epochs) - len(kept), 'epoch')} of waiting left out."]
    return lines


def _metrics(state: SystemState) -> list[str]:
    """Losses and accuracies beside the objective, those of validation first."""
    names = [name for name in state.metrics if "loss" in name.lower() or is_accuracy(name)]
    names = [name for name in names if name != state.objective.name]
    return sorted(names, key=lambda name: (not name.startswith("val"), name))[:_MOST_METRICS]


def _values(state: SystemState | None, names: Sequence[str]) -> list[str]:
    """Cells of one epoch; all of them missing where it was undone before it was seen."""
    if state is None:
        return [metric(name, None) for name in names] + ["", ""]
    objective, *others = names
    total = state.total_flops
    return [
        metric(objective, state.objective.value),
        *(metric(name, state.metrics.get(name)) for name in others),
        f"{state.num_parameters:,}",
        flops(total) if total is not None else "",
    ]


def _done(chapters: Sequence[Chapter], undone: int | None) -> str:
    """What was done at the end of an epoch; empty where it was nothing."""
    acts = [act for chapter in chapters for act in chapter.governed + chapter.acts]
    kinds = Counter(
        act.decision.command.kind for act in acts if not act.decision.refused and not act.waits
    )
    told = ["the governor stepped in"] if any(c.interventions for c in chapters) else []
    told += [f"{DEEDS[kind]} {count}" for kind, count in kinds.items()]
    refused = sum(bool(act.decision.refused) for act in acts)
    if refused:
        told.append(f"refused {refused}")
    if any(chapter.exchanges or chapter.later_exchanges for chapter in chapters):
        told.append("policy changed")
    if undone is not None:
        told.append(f"undone at the end of epoch {undone + 1}")
    return ", ".join(told)


def _kept(epochs: range, done: dict[int, str]) -> list[int]:
    """Epochs that the table shows: all, or those with deeds, the ends, and some between."""
    if len(epochs) <= MOST_ROWS:
        return list(epochs)
    kept = {epochs[0], epochs[-1], *(epoch for epoch in epochs if done[epoch])}
    room = max(MOST_ROWS - len(kept), 0)
    rest = [epoch for epoch in epochs if epoch not in kept]
    if room:
        kept.update(rest[:: -(-len(rest) // room)])
    return sorted(kept)
