"""The beginning of the page: what was run, how it ended, how to read it, the curve."""

from collections.abc import Sequence

from esper_lightning.leyline import (
    Objective,
    RunSummary,
    SeedStage,
    SlotShape,
    SystemState,
)
from esper_lightning.nissa.explanation.curve import curve
from esper_lightning.nissa.explanation.fates import Fates
from esper_lightning.nissa.explanation.markdown import (
    code,
    codes,
    metric,
    plural,
    quoted,
    sentence,
    table,
)
from esper_lightning.nissa.explanation.seen import is_better
from esper_lightning.nissa.explanation.story import Story
from esper_lightning.nissa.history import History

_WORDS = (
    "The **host** is the network that training began with. A **slot** is one of its modules, at "
    "which something may grow.",
    "A **seed** is a small branch that is planted in a slot, made from a **blueprint**; its output "
    "is added to the slot's. It is on trial until it is made permanent (a *fossil*) or *culled*.",
    "Its stages: *germinated* (planted), *training* (beside the network, which does not hear it), "
    "*blending* (its output fades in, alpha from 0 to 1), *shadowing* (in full, watched), "
    "*probationary* (trained together with the host). A seed whose output is zero at birth may go "
    "to the last one at once. A slot without a seed is *dormant*.",
    "A **boundary** is the end of an epoch, after validation. Only there the controller decides. "
    "It sees training and validation, never the test split.",
    "**Pressure** is the size of the gradient in a slot's own module: how much the loss still "
    "pulls there.",
    "**Gain** is how much better the objective is than where its curve was heading before the seed "
    "was planted; **rent** is the least gain that pays for the seed's size.",
    "A **gate** is what a seed must pass to move on: measured values beside thresholds, ✓ or ✗. "
    "G0 asks whether a seed is sane, G1 whether it learns, G2 and G3 whether the network stays as "
    "good as it was, G4 whether the gain pays the rent, G5 whether a removed seed left nothing.",
)


def opening(
    told: Story, past: History | None, found: Fates, summary: RunSummary | None
) -> list[str]:
    """The page up to its decisions.

    Args:
        told: the run.
        past: the same as curves; None where no epoch ended.
        found: what became of its seeds.
        summary: of the run, if there is one.
    """
    lines = [
        f"# Run {code(told.run_id)}, decision by decision",
        "",
        "Made by `python -m esper_lightning.nissa explain` from what the run recorded. Epochs are "
        "counted from 1, as a terminal shows them; the record counts from 0.",
        "",
        _outcome(told, past, found),
        "",
        *table(["", ""], _facts(told, summary)),
        "",
        "## How to read this",
        "",
        *(f"- {word}" for word in _WORDS),
        "",
    ]
    return lines + curve(told)


def _outcome(told: Story, past: History | None, found: Fates) -> str:
    states = told.states
    sentences = [_end(told)]
    if states and past is not None:
        sentences.append(_reached(states))
        entered = [change.after for chapter in told.chapters for change in chapter.changes]
        planted = entered.count(SeedStage.GERMINATED)
        grown = sum(len(seeds) for seeds in found.grown.values())
        sentences.append(
            f"{plural(planted, 'seed')} planted, {grown} permanent in the end, "
            f"{len(found.culled)} culled: from {past.host_parameters:,} to "
            f"{past.final_parameters:,} parameters."
        )
    return " ".join(sentences)


def _end(told: Story) -> str:
    last = told.states[-1] if told.states else None
    done = last.epoch + 1 if last is not None else 0
    # One that ends early learns at its last boundary that it has no more epochs.
    known = [each.max_epochs for each in (last, told.started) if each is not None]
    most = max((each for each in known if each is not None), default=0)
    of = f"{done} of {plural(most, 'epoch')}" if most else plural(done, "epoch")
    if told.ended is None:
        return f"The record stops after {of}: the run goes on, or it was killed."
    if told.ended.outcome == "finished":
        return f"The run finished after {of}."
    return f"The run {sentence(told.ended.outcome)} It had done {of}."


def _reached(states: Sequence[SystemState]) -> str:
    """How far the objective came."""
    what = states[-1].objective
    seen = [(s.epoch, s.objective.value) for s in states if s.objective.value is not None]
    if not seen:
        return f"Its objective {code(what.name)} was never measured."
    (first, start), (last, end) = seen[0], seen[-1]
    best, top = _best(what, seen)
    told = f"Its objective {code(what.name)} went from {metric(what.name, start)}"
    told += f" (epoch {first + 1}) to {metric(what.name, end)}"
    if best == last or metric(what.name, top) == metric(what.name, end):
        return f"{told}, its best value."
    return f"{told}; its best value was {metric(what.name, top)} in epoch {best + 1}."


def _best(what: Objective, seen: Sequence[tuple[int, float]]) -> tuple[int, float]:
    best = seen[0]
    for point in seen[1:]:
        if is_better(what, point[1], best[1]):
            best = point
    return best


def _facts(told: Story, summary: RunSummary | None) -> list[tuple[str, str]]:
    """What was run, as rows of a table."""
    last = told.states[-1] if told.states else None
    started = told.started
    rows = []
    if summary is not None:
        seed = "none" if summary.seed is None else str(summary.seed)
        rows.append(("host", code(summary.host)))
        rows.append(("random seed of the run", seed))
        rows.append(("how seeds are raised", code(summary.incubation)))
    if started is not None:
        rows.append(("parameters of the host", f"{started.host_parameters:,}"))
        rows.append(("slots", _slots(told)))
    if last is not None:
        better = "lower" if last.objective.mode == "min" else "higher"
        rows.append(("objective", f"{code(last.objective.name)}, {better} is better"))
        rows.append(("steps in an epoch", f"{last.steps_per_epoch:,}"))
        if last.hardware is not None:
            rows.append(("trained on", _hardware(last)))
    policies = list(dict.fromkeys(act.decision.policy for act in told.acts))
    rows.append(("decided by", codes(policies) if policies else "nobody"))
    if told.resumed:
        when = ", ".join(str(epoch + 1) for epoch in told.resumed)
        again = "epochs that were trained twice are told as they were the second time"
        rows.append(("resumed", f"before epoch {when}; {again}"))
    if started is not None:
        versions = ", ".join(f"{name} {each}" for name, each in sorted(started.versions.items()))
        rows.append(("versions", quoted(versions)))
    return rows


def _slots(told: Story) -> str:
    assert told.started is not None
    shapes: dict[str, SlotShape | None] = dict.fromkeys(told.started.slots)
    for state in told.states:
        shapes.update({slot.slot: slot.shape for slot in state.slots})
    return (
        "; ".join(
            code(path) if shape is None else f"{code(path)} ({quoted(str(shape))})"
            for path, shape in shapes.items()
        )
        or "none"
    )


def _hardware(state: SystemState) -> str:
    hardware = state.hardware
    assert hardware is not None
    processes = plural(hardware.processes, "process")
    return f"{quoted(hardware.device)}, {processes}, {quoted(hardware.precision)}"
