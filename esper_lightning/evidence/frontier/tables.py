"""The benchmark's tables, in Markdown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from esper_lightning.evidence.frontier.arms import ARMS
from esper_lightning.evidence.frontier.curves import reached_with
from esper_lightning.evidence.frontier.goals import judge
from esper_lightning.evidence.frontier.outcomes import (
    REFERENCE,
    TITLES,
    Outcome,
    Outcomes,
    outcomes,
    pairs,
)
from esper_lightning.evidence.frontier.rows import Row
from esper_lightning.evidence.frontier.savings import savings
from esper_lightning.evidence.frontier.statistics import (
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)
from esper_lightning.evidence.frontier.tasks import TASKS
from esper_lightning.evidence.frontier.twins import agreement, twins
from esper_lightning.evidence.frontier.verdicts import verdicts
from esper_lightning.evidence.intervals import Interval
from esper_lightning.evidence.report import table

JUDGED = ("grown", "inserted", "straight_through", "shadow", "series")
"""Arms whose first cohort is compared with its twin."""

ON_THE_WAY = (0.25, 0.5, 0.75)
"""Shares of the FLOPs of growing at which it is compared with what costs as much."""

_HEADER = [
    "arm",
    "seeds",
    "test accuracy %",
    "parameters",
    "training GFLOP",
    "wall s",
    "grown minus this",
    "P(grown better)",
]


def report(rows: Sequence[Row], command: str) -> str:
    """Everything that the rows tell."""
    by_task = {name: outcomes(rows, name) for name in TASKS}
    by_task = {name: found for name, found in by_task.items() if found}
    parts = [_provenance(rows, command)]
    for name, found in by_task.items():
        parts.append(f"## {TASKS[name].title}\n\n{_arms(found)}")
    parts.append(f"## Goals\n\n{_goals(by_task)}")
    on_the_way = _on_the_way(by_task)
    if on_the_way:
        parts.append(f"## On the way\n\n{on_the_way}")
    could_save = savings(by_task)
    if could_save:
        parts.append(f"## What growing could save\n\n{could_save}")
    parts.append(f"## What was grown\n\n{_blueprints(rows)}")
    parts.append(f"## Gate G4 beside twins without the seeds\n\n{_twins(rows)}")
    told = _verdicts(rows)
    if told:
        parts.append(f"## What gate G4 would have said of seeds that stayed\n\n{told}")
    return "\n\n".join(parts) + "\n"


def _provenance(rows: Sequence[Row], command: str) -> str:
    commits = sorted({row.commit or "unknown" for row in rows})
    versions = rows[0].summary.versions
    told = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"`{command}`: {len(rows)} runs; commit {', '.join(commits)} (`+`: with changes); {told}."
        "\n\n"
        "Accuracy is the interquartile mean over seeds with its bootstrapped 95 % interval; "
        "parameters, FLOPs and time are means. Differences are means, paired by seed, in points, "
        "with the interval of Student's t."
    )


def _arms(found: Outcomes) -> str:
    lines = []
    for name, of_seeds in found.items():
        told = list(of_seeds.values())
        lines.append(
            [
                TITLES[name],
                str(len(told)),
                _percent(interquartile_mean([outcome.test for outcome in told])),
                f"{_mean(outcome.parameters for outcome in told):,.0f}",
                f"{_mean(outcome.flops for outcome in told) / 1e9:,.2f}",
                f"{_mean(outcome.wall_s for outcome in told):,.1f}",
                *_against(found.get(REFERENCE, {}), of_seeds, same=name == REFERENCE),
            ]
        )
    return table(_HEADER, lines)


def _against(
    grown: Mapping[int, Outcome], other: Mapping[int, Outcome], *, same: bool
) -> list[str]:
    seeds = pairs(grown, other)
    if same or not seeds:
        return ["", ""]
    first = [grown[seed].test for seed in seeds]
    second = [other[seed].test for seed in seeds]
    gap, chance = paired_difference(first, second), probability_of_improvement(first, second)
    return [
        f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]",
        f"{chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}]",
    ]


def _goals(by_task: Mapping[str, Outcomes]) -> str:
    lines = []
    for goal, findings in judge(by_task):
        cells = [
            "" if finding is None else f"{finding.text} {'met' if finding.met else 'not met'}"
            for finding in findings.values()
        ]
        known = [finding for finding in findings.values() if finding is not None]
        met = sum(finding.met for finding in known)
        lines.append([goal.text, *cells, f"{met} of {len(known)}"])
    return table(["goal", *by_task, "met on"], lines)


def _on_the_way(by_task: Mapping[str, Outcomes]) -> str:
    """Grown minus each rival of equal FLOPs, validation accuracy, before both have ended."""
    lines = [
        [
            task,
            TITLES[name],
            *(_ahead(found[REFERENCE], found[name], share) for share in ON_THE_WAY),
        ]
        for task, found in by_task.items()
        for name in found
        if REFERENCE in found and name.endswith("_equal_flops") and name in ARMS
    ]
    shares = [f"after {share:.0%} of the FLOPs" for share in ON_THE_WAY]
    return table(["task", "grown minus", *shares], lines) if lines else ""


def _ahead(grown: Mapping[int, Outcome], other: Mapping[int, Outcome], share: float) -> str:
    gaps = []
    for seed in pairs(grown, other):
        flops = share * grown[seed].flops
        first, second = reached_with(grown[seed], flops), reached_with(other[seed], flops)
        if first is not None and second is not None:
            gaps.append(first - second)
    return f"{_mean(gaps):+.2f}" if gaps else ""


def _blueprints(rows: Iterable[Row]) -> str:
    kept: Counter[tuple[str, str]] = Counter()
    culled: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.arm == REFERENCE:
            kept.update((row.task, seed.blueprint) for seed in row.summary.grown)
            culled.update((row.task, seed.blueprint) for seed in row.summary.culled)
    order = list(TASKS)
    planted = sorted(kept.keys() | culled.keys(), key=lambda key: (order.index(key[0]), key[1]))
    lines = [[*key, str(kept[key]), str(culled[key])] for key in planted]
    return table(["task", "blueprint", "fossilised", "culled"], lines)


def _twins(rows: Sequence[Row]) -> str:
    lines = []
    for task in TASKS:
        for arm in JUDGED:
            told = agreement(twins(rows, task=task, arm=arm))
            if told["runs"]:
                lines.append(
                    [
                        task,
                        TITLES[arm],
                        f"{told['runs']:.0f}",
                        f"{told['rank_correlation']:.2f}",
                        f"{told['bias']:+.1%}",
                        f"{told['kept']:.0f}",
                        f"{told['false_fossils']:.0f}",
                        f"{told['false_culls']:.0f}",
                    ]
                )
    header = ["task", "arm", "cohorts", "rank correlation", "bias", "kept"]
    return table([*header, "kept, no gain at the end", "culled, had gained"], lines)


def _verdicts(rows: Sequence[Row]) -> str:
    lines = [
        [
            task,
            str(each.cohorts),
            str(each.age),
            f"{each.doubt:g}",
            f"{each.error:+.2f}, {each.spread:.2f}",
            f"{each.kept:.0%}",
            _signed(each.worth_kept),
            _signed(each.worth_culled),
        ]
        for task in TASKS
        for each in verdicts(rows, task=task)
    ]
    header = ["task", "cohorts", "epochs", "doubt", "error of the estimate: mean, deviation"]
    kept = ["would have kept", "points of those", "points of the culled"]
    return table([*header, *kept], lines) if lines else ""


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _percent(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _mean(values: Iterable[float]) -> float:
    told = list(values)
    return sum(told) / len(told)
