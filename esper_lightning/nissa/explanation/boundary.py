"""One boundary told: what was seen, what was chosen and why, what came of it."""

import math
from collections.abc import Iterable, Sequence

from esper_lightning.leyline import (
    CommandKind,
    Decision,
    FieldReport,
    Intervention,
    Outcome,
    PolicyChanged,
    PolicyStep,
    Risk,
    StageChanged,
    SystemState,
)
from esper_lightning.nissa.explanation import seen
from esper_lightning.nissa.explanation.markdown import (
    blueprint,
    capital,
    code,
    codes,
    delta,
    epochs,
    grouped,
    listed,
    number,
    percent,
    plural,
    quoted,
    sentence,
)
from esper_lightning.nissa.explanation.story import Act, Chapter
from esper_lightning.nissa.stage_look import stage_label

DEEDS = {
    CommandKind.GERMINATE: "planted",
    CommandKind.ADVANCE: "hurried",
    CommandKind.FOSSILIZE: "made permanent",
    CommandKind.CULL: "culled",
    CommandKind.PRUNE: "pruned",
    CommandKind.PAUSE: "paused",
    CommandKind.RESUME: "resumed",
    CommandKind.ROLLBACK: "rolled back",
    CommandKind.OPTIMIZER: "changed the optimiser",
    CommandKind.BREAKER: "changed the breaker",
    CommandKind.EMERGENCY: "removed at once",
}
"""What was done, as headings and tables say it."""

OUTCOMES = {
    Outcome.SUCCESS: "a success",
    Outcome.NEUTRAL: "neutral",
    Outcome.REGRESSION: "a regression",
    Outcome.ABORTED: "aborted",
}
"""Outcomes of field reports, as a sentence says them."""

_MOST_NAMES = 3


def boundary(
    chapter: Chapter, before: SystemState | None, risk_before: Risk | None, *, policy: str
) -> list[str]:
    """A section about one boundary.

    Args:
        chapter: the boundary.
        before: what was seen at the boundary before.
        risk_before: as it was assessed last.
        policy: name of the run's policy; another one's decisions say whose they are.
    """
    lines = [f"### {_title(chapter)}", ""]
    for changed in chapter.exchanges:
        lines += [f"**Policy.** {exchange(changed)}", ""]
    if chapter.moves:
        lines += ["**By themselves**, before anything was decided:", ""]
        lines += [f"- {each}" for each in moves(chapter.moves)] + [""]
    for intervention in chapter.interventions:
        lines += [f"**Governor.** {_intervention(intervention)}", ""]
    lines += _acts(chapter.governed, None, shared=None, policy=policy)
    state = chapter.state
    if state is None:
        return [*lines, "The controller was not asked.", ""]
    lines += [f"**Seen.** {seen.network(state, before)}", ""]
    if any(not act.waits for act in chapter.acts):
        told = {
            event.slot
            for act in chapter.acts
            for event in act.happened
            if isinstance(event, StageChanged) and event.gate is not None
        }
        lines += seen.slots(state, told=told)
    if chapter.risk is not None:
        lines += [f"**Risk.** {seen.risk(chapter.risk, risk_before)}", ""]
    chosen = _acts(chapter.acts, state, shared=chapter.risk, policy=policy)
    lines += ["**Chosen.**", "", *chosen] if chosen else ["Nobody decided.", ""]
    if chapter.afterwards:
        lines += ["**Afterwards**, by no decision in the record:", ""]
        lines += [f"- {each}" for each in moves(chapter.afterwards)] + [""]
    for changed in chapter.later_exchanges:
        lines += [f"**Policy, from the next boundary on.** {exchange(changed)}", ""]
    return lines


def moves(changes: Sequence[StageChanged], *, because: str = "") -> list[str]:
    """Changes of stage: from where to where, by which gate, why.

    One that there is nothing to tell of is joined with the next of its slot, and what is the same
    of several slots is told once.

    Args:
        changes: in order.
        because: a reason that was told already.
    """
    ways: dict[str, str] = {}
    facts = []
    for place, changed in enumerate(changes):
        way = ways.pop(changed.slot, f" {stage_label(changed.before)}")
        way += f" → {stage_label(changed.after)}"
        why = _why(changed, because)
        goes_on = any(later.slot == changed.slot for later in changes[place + 1 :])
        if goes_on and not why:
            ways[changed.slot] = way
        else:
            facts.append((changed.slot, f"{way}: {why}." if why else f"{way}."))
    return grouped(facts)


def _why(changed: StageChanged, because: str) -> str:
    parts = [] if changed.gate is None else [seen.gate(changed.gate)]
    # A gate's own sentence repeats its measurements.
    repeats = changed.gate is not None and changed.reason.startswith(changed.gate.gate.value)
    if changed.reason and changed.reason != because and not repeats:
        parts.append(quoted(changed.reason))
    return "; ".join(parts)


def deed(decision: Decision, state: SystemState | None) -> str:
    """What a decision asked for, with the names of slot and blueprint."""
    command = decision.command
    slot = code(command.slot)
    match command.kind:
        case CommandKind.GERMINATE:
            return f"Plant {blueprint(command.blueprint, command.parameters)} in {slot}"
        case CommandKind.NOOP:
            return "Wait"
        case CommandKind.ROLLBACK:
            return "Go back to an earlier network"
        case CommandKind.FOSSILIZE:
            return f"Make {_seed_of(command.slot, state)} permanent in {slot}"
        case CommandKind.CULL:
            return f"Cull {_seed_of(command.slot, state)} in {slot}"
        case CommandKind.EMERGENCY:
            return f"Remove {_seed_of(command.slot, state)} from {slot} at once"
        case CommandKind.PRUNE:
            return f"Prune the last fossil of {slot}"
        case CommandKind.ADVANCE:
            return f"Ask the gate of {_seed_of(command.slot, state)} in {slot} early"
    return f"{capital(command.kind.value)} {slot}"


def figures(decision: Decision) -> str:
    """Probability, value, version and share of a decision; empty where none was recorded."""
    told = []
    if decision.log_probability is not None:
        chance = math.exp(min(decision.log_probability, 0.0))
        told.append(f"probability {percent(chance)} (log {number(decision.log_probability)})")
    if decision.value is not None:
        told.append(f"expected value {number(decision.value)}")
    if decision.share is not None:
        told.append(f"given {percent(decision.share)} of what was left of the budget")
    if decision.policy_version is not None:
        told.append(f"policy version {decision.policy_version}")
    return capital(", ".join(told))


def report(told: FieldReport) -> str:
    """What a decision led to, as far as its observation window shows."""
    deltas = [f"{code(name)} {delta(name, value)}" for name, value in sorted(told.deltas.items())]
    against = " against where the curve was heading" if deltas else ""
    parts = [
        f"{OUTCOMES[told.outcome]}, observed in {epochs(told.first_epoch, told.last_epoch)}: "
        f"{listed(deltas) if deltas else 'the difference was not measured'}{against}."
    ]
    if told.reason:
        parts.append(capital(sentence(told.reason)))
    if told.mitigations:
        parts.append(f"Meanwhile: {'; '.join(quoted(each) for each in told.mitigations)}.")
    return " ".join(parts)


def exchange(changed: PolicyChanged) -> str:
    """A policy that was installed, refused or taken out again."""
    name = f"version {changed.offered} of {code(changed.policy)}"
    why = f": {sentence(changed.reason)}" if changed.reason else "."
    decides = "no version" if changed.after is None else f"version {changed.after}"
    match changed.step:
        case PolicyStep.INSTALLED:
            was = "none" if changed.before is None else f"version {changed.before}"
            return f"{capital(name)} was installed, in place of {was}{why}"
        case PolicyStep.REFUSED:
            return f"{capital(name)} was refused, and {decides} goes on deciding{why}"
    return f"{capital(name)} was taken out again, and {decides} decides{why}"


def _title(chapter: Chapter) -> str:
    when = f"Epoch {chapter.epoch + 1}" if chapter.epoch >= 0 else "Before the first epoch"
    when += ", when the run had ended" if chapter.again else ""
    told = []
    if chapter.interventions:
        told.append("the governor stepped in")
    slots: dict[CommandKind, list[str]] = {}
    refused = 0
    for act in chapter.governed + chapter.acts:
        command = act.decision.command
        if act.decision.refused:
            refused += 1
        elif command.kind is not CommandKind.NOOP:
            slots.setdefault(command.kind, []).append(command.slot)
    for kind, names in slots.items():
        where = codes(names) if len(names) <= _MOST_NAMES else f"{len(names)} slots"
        told.append(f"{DEEDS[kind]} in {where}" if all(names) else DEEDS[kind])
    if refused:
        told.append(f"{plural(refused, 'choice')} refused")
    if chapter.exchanges or chapter.later_exchanges:
        told.append("the policy was exchanged or was to be")
    if not told:
        moved = chapter.moves or chapter.afterwards
        told.append("waited, while slots moved" if moved else "waited")
    return f"{when}: {'; '.join(told)}"


def _intervention(event: Intervention) -> str:
    told = f"{capital(event.level.value)}: {sentence(event.alarm)}"
    if event.suspects:
        told += f" Blamed: {codes(event.suspects)}."
    if event.restored is None:
        return f"{told} The network was kept."
    back = f"at the end of epoch {event.restored + 1}" if event.restored >= 0 else "at the start"
    return f"{told} The network is again what it was {back}."


def _acts(
    acts: Iterable[Act], state: SystemState | None, *, shared: Risk | None, policy: str
) -> list[str]:
    told = list(acts)
    wait = "Do no more" if any(act.acts for act in told) else "Wait"
    lines = [
        line for act in told for line in _act(act, state, wait=wait, shared=shared, policy=policy)
    ]
    return [*lines, ""] if lines else []


def _act(
    act: Act, state: SystemState | None, *, wait: str, shared: Risk | None, policy: str
) -> list[str]:
    decision = act.decision
    by = f", said {code(decision.policy)}" if decision.policy != policy else ""
    if act.waits:
        return [f"- **{wait}**{by}: {' '.join(_behind(decision, shared))}"]
    lines = [f"- **{deed(decision, state)}**{by}.", *_nested(_behind(decision, shared))]
    if decision.refused:
        return lines + _nested([f"Refused, so nothing changed: {sentence(decision.refused)}"])
    changes = [each for each in act.happened if isinstance(each, StageChanged)]
    told = moves(changes, because=decision.command.reason)
    told += [_intervention(each) for each in act.happened if isinstance(each, Intervention)]
    led = [f"Then: {each}" for each in told] + [f"It was {report(each)}" for each in act.reports]
    return lines + _nested(led)


def _behind(decision: Decision, shared: Risk | None) -> list[str]:
    """Why it was decided, among what, how surely."""
    why = sentence(decision.command.reason or "no reason was recorded")
    told = [why if decision.command.kind is CommandKind.NOOP else f"Why: {why}"]
    if decision.mask:
        kinds = ", ".join(kind.value for kind in decision.mask)
        told.append(f"This slot could have been given: {kinds}.")
    if figures(decision):
        told.append(f"{figures(decision)}.")
    if decision.risk is not None and decision.risk != shared:
        told.append(f"Risk: {seen.risk(decision.risk, None)}")
    return told


def _nested(lines: Sequence[str]) -> list[str]:
    return [f"    - {line}" for line in lines]


def _seed_of(slot: str, state: SystemState | None) -> str:
    """The live seed of a slot, as far as the state tells."""
    found = [each for each in state.slots if each.slot == slot] if state is not None else []
    name = found[0].blueprint if found else ""
    return code(name) if name else "the seed"
