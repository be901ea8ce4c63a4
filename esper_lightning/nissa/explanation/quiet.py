"""Boundaries at which the controller waited, several of a kind in one section."""

import re
from collections.abc import Sequence
from itertools import groupby

from esper_lightning.leyline import LIVE_STAGES, Risk
from esper_lightning.nissa.explanation import seen
from esper_lightning.nissa.explanation.boundary import figures
from esper_lightning.nissa.explanation.markdown import (
    blueprint,
    capital,
    code,
    codes,
    epochs,
    grouped,
    metric,
    percent,
    sentence,
)
from esper_lightning.nissa.explanation.story import Chapter
from esper_lightning.nissa.stage_look import stage_label

_MOST_VALUES = 8
"""That a line shows of a course."""

_FIGURE = re.compile(r"-?\d[\d,.]*")


def runs(chapters: Sequence[Chapter]) -> list[list[Chapter]]:
    """Chapters in order; quiet ones that follow each other for the same reason together.

    Reasons are the same when they differ in figures alone.
    """
    found: list[list[Chapter]] = []
    for key, group in groupby(chapters, key=_kind):
        same = list(group)
        found += [same] if key is not None else [[chapter] for chapter in same]
    return found


def quiet(chapters: Sequence[Chapter], risk_before: Risk | None, *, policy: str) -> list[str]:
    """A section about quiet boundaries that are of one kind.

    Args:
        chapters: at least one.
        risk_before: as it was assessed last.
        policy: name of the run's policy; another one's waiting says whose it is.
    """
    first, last = chapters[0], chapters[-1]
    when = capital(epochs(first.epoch, last.epoch))
    lines = [f"### {when}: waited", "", _why(chapters, policy)]
    values = [chapter.state.objective for chapter in chapters if chapter.state is not None]
    if values:
        told = _course([metric(each.name, each.value) for each in values])
        lines[-1] += f" {code(values[0].name)}: {told}."
    facts = _seeds(chapters)
    said = [figures(act.decision) for chapter in chapters for act in chapter.acts]
    said = [each for each in said if each]
    if said:
        facts.append(f"{' → '.join(dict.fromkeys([said[0], said[-1]]))}.")
    if last.risk is not None:
        # As at the first boundary, where it may have changed; by kind it is the same since.
        facts.append(f"Risk: {seen.risk(first.risk or last.risk, risk_before)}")
    return [*lines, "", *(f"- {fact}" for fact in facts), *([""] if facts else [])]


def _kind(chapter: Chapter) -> tuple[object, ...] | None:
    """What quiet boundaries have in common that are told together; None for one that is not."""
    if not chapter.is_quiet or chapter.state is None:
        return None
    risk = chapter.risk
    return (
        chapter.again,
        tuple((act.decision.policy, _pattern(act.decision.command.reason)) for act in chapter.acts),
        None if risk is None else (risk.level, risk.conservative, _pattern(risk.reason)),
    )


def _pattern(reason: str) -> str:
    return _FIGURE.sub("#", reason)


def _why(chapters: Sequence[Chapter], policy: str) -> str:
    others = {act.decision.policy for act in chapters[0].acts} - {policy}
    waited = f"Waited, said {codes(sorted(others))}" if others else "Waited"
    reasons = [
        [act.decision.command.reason for act in chapter.acts] or ["nobody decided"]
        for chapter in chapters
    ]
    first, last = (sentence("; ".join(reason)) for reason in (reasons[0], reasons[-1]))
    if len(chapters) == 1 or first == last:
        return f"{waited}: {first}"
    return f"{waited}, at first: {first} At last: {last}"


def _seeds(chapters: Sequence[Chapter]) -> list[str]:
    """What became of the measurements of each seed that lived through all of it."""
    states = [chapter.state for chapter in chapters if chapter.state is not None]
    facts = []
    for index, now in enumerate(states[-1].slots):
        if now.stage not in LIVE_STAGES:
            continue
        then = [state.slots[index] for state in states if len(state.slots) > index]
        gains = _course([percent(slot.gain) for slot in then])
        rent = f", rent {percent(now.rent)}" if now.rent is not None else ""
        seed = f"{blueprint(now.blueprint, now.parameters)}, {stage_label(now.stage)}"
        facts.append((now.slot, f" ({seed}): gain {gains}{rent}."))
    asked = [slot for slot in states[-1].slots if slot.gate is not None]
    return grouped(facts) + seen.gates(asked)


def _course(values: Sequence[str]) -> str:
    """Values one after the other, the same ones once; of many some, the first and the last kept."""
    told = [value for value, _ in groupby(values)]
    if len(told) > _MOST_VALUES:
        step = (len(told) - 1) / (_MOST_VALUES - 1)
        told = [told[round(index * step)] for index in range(_MOST_VALUES)]
    return " → ".join(told)
