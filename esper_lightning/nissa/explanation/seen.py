"""What the controller saw at a boundary: the objective, the network, the slots, the risk."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from esper_lightning.leyline import (
    LIVE_STAGES,
    CommandKind,
    Comparison,
    GateResult,
    Measurement,
    Objective,
    Risk,
    RiskLevel,
    SeedState,
    Signal,
    SystemState,
)
from esper_lightning.nissa.explanation.markdown import (
    blueprint,
    code,
    codes,
    grouped,
    listed,
    metric,
    number,
    percent,
    plural,
    quoted,
    table,
)
from esper_lightning.nissa.quantities import flops, growth_factor, is_accuracy
from esper_lightning.nissa.stage_look import stage_label

MOST_ROWS = 12
"""Of a table of slots: with more, those that rest and press least are told in one line."""

REACTIONS = {
    RiskLevel.GREEN: "choices pass",
    RiskLevel.YELLOW: "fewer and safer seeds may be planted",
    RiskLevel.ORANGE: "nothing may be planted, and rules judge what lives",
    RiskLevel.RED: "nothing may be planted, and seeds that are not coupled yet pause",
    RiskLevel.CRITICAL: "the epoch is undone",
}
"""What is done about a policy's choices at each level."""

_SHARES = {"relative": "", "of steps": " of steps", "of its output": " of its output"}
"""Units that are shares of something, and what stands behind their percentage."""


def network(state: SystemState, before: SystemState | None) -> str:
    """Objective and network in a sentence or two.

    Args:
        state: at this boundary.
        before: at the boundary before, if there was one.
    """
    told = [f"{objective(state, before)}."]
    size = f"The network has {plural(state.num_parameters, 'parameter')}"
    grown = growth_factor(state.host_parameters, state.num_parameters)
    if state.num_parameters != state.host_parameters and grown:
        size += f" ({grown} its host's)"
    if state.flops is not None:
        size += f" and trained at {flops(state.flops)} a sample"
    told.append(f"{size}.")
    free = sum(CommandKind.GERMINATE in slot.legal for slot in state.slots)
    told.append(f"Room: {free} of {plural(len(state.slots), 'slot')} free to plant in.")
    if state.rollbacks:
        told.append(f"The governor undid {plural(state.rollbacks, 'epoch')} so far.")
    return " ".join(told)


def objective(state: SystemState, before: SystemState | None) -> str:
    """The objective's value, and how far it moved since ``before``."""
    name, value = state.objective.name, state.objective.value
    told = f"{code(name)} {metric(name, value)}"
    last = before.objective.value if before is not None else None
    if value is None or last is None or before is None:
        return told
    if is_accuracy(name):
        moved = f"{number(100 * abs(value - last))} points"
    else:
        moved = percent(abs(value - last) / abs(last)) if last else number(abs(value - last))
    if value == last:
        return f"{told}, the same as in epoch {before.epoch + 1}"
    verdict = "better" if is_better(state.objective, value, last) else "worse"
    return f"{told}, {moved} {verdict} than in epoch {before.epoch + 1}"


def is_better(what: Objective, value: float, than: float) -> bool:
    """Whether one value of an objective is better than another."""
    return value > than if what.mode == "max" else value < than


def slots(state: SystemState, *, told: Collection[str] = ()) -> list[str]:
    """A table of the slots, and what stands beside it.

    Args:
        state: at this boundary.
        told: slots whose gate is told elsewhere.
    """
    if not state.slots:
        return ["There is no slot.", ""]
    shown = _shown(state.slots)
    lines = table(
        ["slot", "stage", ">pressure", "grown here", "live seed", ">alpha", ">gain", ">rent"],
        [_row(slot) for slot in shown],
    )
    hidden = len(state.slots) - len(shown)
    if hidden:
        lines += ["", f"And {plural(hidden, 'slot')} at rest with less pressure."]
    facts = gates([slot for slot in shown if slot.slot not in told])
    facts += [fact for slot in shown for fact in _harm(slot)]
    return [*lines, "", *(f"- {fact}" for fact in facts), *([""] if facts else [])]


def gates(told: Iterable[SeedState]) -> list[str]:
    """What the gates of live seeds answered, one that is the same for several once."""
    return grouped(
        (slot.slot, f": {'no gate was asked yet' if slot.gate is None else gate(slot.gate)}.")
        for slot in told
        if slot.stage in LIVE_STAGES
    )


def gate(result: GateResult) -> str:
    """A gate's answer with every value beside its threshold."""
    verdict = "passed" if result.passed else "did not pass"
    measured = "; ".join(measurement(each) for each in result.measurements)
    return f"{result.gate.value} {verdict}: {measured or 'nothing was asked'}"


def measurement(each: Measurement) -> str:
    """A measured value, its threshold, and whether it passes."""
    told = quoted(each.name)
    least = "at least" if each.comparison is Comparison.AT_LEAST else "at most"
    mark = "✓" if each.passed else "✗"
    if each.unit in _SHARES:
        behind = _SHARES[each.unit]
        return f"{told} {percent(each.value)} ({least} {percent(each.threshold)}{behind}) {mark}"
    unit = f" {quoted(each.unit)}" if each.unit else ""
    return f"{told} {number(each.value)} ({least} {number(each.threshold)}{unit}) {mark}"


def risk(now: Risk, before: Risk | None) -> str:
    """Level, signals, reason and conservative mode.

    Args:
        now: at this boundary.
        before: the one that was assessed last.
    """
    signals = [
        f"{signal.value} {number(now.signals.get(signal))}" for signal in Signal if now.signals
    ]
    told = f"{now.level.name} ({REACTIONS[now.level]})"
    told += f"; signals from 0 to 1: {', '.join(signals)}" if signals else ""
    told += f". Because: {quoted(now.reason)}" if now.reason else ""
    was = before is not None and before.conservative
    if now.conservative:
        told += f". Conservative mode {'stays on' if was else 'is entered'}"
    elif was:
        told += ". Conservative mode is left"
    return f"{told}."


def _shown(all_slots: Sequence[SeedState]) -> list[SeedState]:
    """Every slot, or those in which something is under way and then those that press most."""
    if len(all_slots) <= MOST_ROWS:
        return list(all_slots)
    order = sorted(
        all_slots, key=lambda slot: (slot.stage not in LIVE_STAGES, -(slot.pressure or 0.0))
    )
    kept = {slot.slot for slot in order[:MOST_ROWS]}
    return [slot for slot in all_slots if slot.slot in kept]


def _row(slot: SeedState) -> tuple[str, ...]:
    lives = slot.stage in LIVE_STAGES
    paused = ", paused" if slot.paused else ""
    return (
        code(slot.slot),
        f"{stage_label(slot.stage)}, {plural(slot.age, 'epoch')}{paused}",
        number(slot.pressure),
        _fossils(slot),
        f"{blueprint(slot.blueprint, slot.parameters)}, {plural(slot.num_parameters, 'parameter')}"
        if lives
        else "",
        number(slot.alpha) if lives else "",
        percent(slot.gain) if lives else "",
        percent(slot.rent) if lives else "",
    )


def _fossils(slot: SeedState) -> str:
    """Blueprints of what has grown there, each with how often."""
    counts = Counter(fossil.blueprint for fossil in slot.fossils)
    told = [f"{count} {code(name)}" if count > 1 else code(name) for name, count in counts.items()]
    return listed(told) if told else ""


def _harm(slot: SeedState) -> list[str]:
    """What went wrong in a slot, as a sentence or none."""
    wrong = []
    if slot.dropped_gradients:
        wrong.append(f"{plural(slot.dropped_gradients, 'gradient')} were not finite")
    if slot.isolation_violations:
        wrong.append(f"it disturbed its host {slot.isolation_violations} times")
    if slot.num_culls:
        wrong.append(f"{plural(slot.num_culls, 'seed')} culled here before")
    if slot.quarantined:
        wrong.append(f"not planted here again: {codes(slot.quarantined)}")
    return [f"In {code(slot.slot)}: {listed(wrong)}."] if wrong else []
