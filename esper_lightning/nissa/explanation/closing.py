"""The end of the page: what grew, what was culled, the bill, what the decisions were worth."""

from collections import Counter
from collections.abc import Iterable, Sequence

from esper_lightning.leyline import FieldReport, RunSummary
from esper_lightning.nissa.explanation.boundary import DEEDS, OUTCOMES
from esper_lightning.nissa.explanation.fates import Fates, Seed
from esper_lightning.nissa.explanation.markdown import (
    MISSING,
    blueprint,
    capital,
    code,
    delta,
    epochs,
    listed,
    metric,
    plural,
    quoted,
    table,
)
from esper_lightning.nissa.explanation.story import Story
from esper_lightning.nissa.history import History
from esper_lightning.nissa.quantities import duration, flops, growth_factor
from esper_lightning.nissa.stage_look import stage_label


def closing(
    told: Story, past: History | None, found: Fates, summary: RunSummary | None
) -> list[str]:
    """The page after its decisions.

    Args:
        told: the run.
        past: the same as curves; None where no epoch ended.
        found: what became of its seeds.
        summary: of the run, if there is one.
    """
    return [
        *_seeds(found),
        *(_bill(told, past, summary) if past is not None else ()),
        *_worth(told),
    ]


def _seeds(found: Fates) -> list[str]:
    grown = [seed for seeds in found.grown.values() for seed in seeds]
    lines = ["## What grew", ""]
    lines += _table(grown, "permanent since") if grown else ["Nothing is permanent.", ""]
    if found.live:
        lines += ["## What is still on trial", "", *_table(found.live.values(), "")]
    lines += ["## What was culled", ""]
    lines += _table(found.culled, "culled") if found.culled else ["Nothing was culled.", ""]
    if found.lost:
        lines += ["## What went with epochs that were undone", "", *_table(found.lost, "undone")]
    return lines


def _table(seeds: Iterable[Seed], ended: str) -> list[str]:
    rows = [
        (
            code(seed.slot),
            blueprint(seed.blueprint, seed.parameters),
            f"{seed.num_parameters:,}",
            _when(seed.planted),
            _when(seed.ended) if seed.ended is not None else "",
            seed.why if seed.ended is not None else stage_label(seed.stage),
        )
        for seed in seeds
    ]
    return [*table(["slot", "blueprint", ">parameters", "planted", ended, "why"], rows), ""]


def _when(epoch: int) -> str:
    return f"epoch {epoch + 1}" if epoch >= 0 else "before the run"


def _bill(told: Story, past: History, summary: RunSummary | None) -> list[str]:
    """Size and cost of the network, before and after."""
    last = told.states[-1]
    counts = [("parameters", f"{past.host_parameters:,}", f"{past.final_parameters:,}")]
    factors = [growth_factor(past.host_parameters, past.final_parameters)]
    host_total = summary.host_training_flops if summary is not None else None
    for title, before, after in (
        ("training FLOPs per sample, last epoch", last.host_flops, last.flops),
        ("training FLOPs of the run", host_total, last.total_flops),
    ):
        counts.append((title, _flops(before), _flops(after)))
        factors.append(_factor(before, after))
    rows = [(*count, factor) for count, factor in zip(counts, factors, strict=True)]
    lines = ["## The bill", "", *table(["", ">host alone", ">this run", ">factor"], rows), ""]
    if summary is None:
        return lines
    lines += [f"Training took {duration(summary.wall_s)}.", ""]
    if summary.test:
        test = [f"{code(name)} {metric(name, value)}" for name, value in summary.test.items()]
        told_test = f"{listed(test)}. No decision has seen this split"
        lines += [f"On the test split the final network has {told_test}.", ""]
    return lines


def _factor(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else growth_factor(before, after)


def _flops(value: float | None) -> str:
    return MISSING if value is None else flops(value)


def _worth(told: Story) -> list[str]:
    """What the decisions led to, by their field reports."""
    lines = ["## What the decisions were worth", "", _counts(told), ""]
    reported = [(act.decision.epoch, report) for act in told.acts for report in act.reports]
    if not reported and not told.orphans:
        return [*lines, f"What they led to was {MISSING}: the record holds no field report.", ""]
    reports = [report for _, report in reported] + told.orphans
    outcomes = Counter(report.outcome for report in reports)
    named = [f"{plural(count, 'was')} {OUTCOMES[each]}" for each, count in outcomes.items()]
    lines += [f"{capital(plural(len(reports), 'field report'))}: {listed(named)}.", ""]
    rows = [_row(report, f"epoch {epoch + 1}") for epoch, report in reported]
    rows += [_row(report, "not in the record") for report in told.orphans]
    head = ["decided", "what", "slot", "blueprint", "observed", "outcome", "differences", "why"]
    return [
        *lines,
        *table(head, rows),
        "",
        "A report compares a run with where its own curve was heading, which is an estimate. "
        "Whether growth pays is told by runs that are matched in data, seed and budget.",
        "",
    ]


def _counts(told: Story) -> str:
    kinds = Counter(act.decision.command.kind for act in told.acts if act.acts)
    waited = sum(chapter.waited for chapter in told.chapters)
    parts = [f"waited {waited:,}"] if waited else []
    parts += [f"{DEEDS[kind]} {count:,}" for kind, count in kinds.items()]
    refused = sum(bool(act.decision.refused) for act in told.acts)
    parts += [f"refused {refused:,}"] if refused else []
    asked = f"The controller was asked {plural(len(told.states), 'time')}"
    return f"{asked}. Decisions: {listed(parts)}."


def _row(report: FieldReport, decided: str) -> tuple[str, ...]:
    differences: Sequence[str] = [
        f"{code(name)} {delta(name, value)}" for name, value in sorted(report.deltas.items())
    ]
    return (
        decided,
        report.kind.value,
        code(report.slot) if report.slot else "",
        code(report.blueprint) if report.blueprint else "",
        epochs(report.first_epoch, report.last_epoch),
        report.outcome.value,
        ", ".join(differences) or MISSING,
        quoted(report.reason),
    )
