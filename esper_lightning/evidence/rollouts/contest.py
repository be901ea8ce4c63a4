"""Policies beside each other on tasks that none of them learned from.

Each decides on the same tasks and seeds, beside the same twins in which nothing grows. What it
could have reached is told by the best schedule of a fixed grid, chosen for each task on other
seeds: its regret is how much less it reached.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Protocol

import msgspec

from esper_lightning.evidence.frontier.statistics import (
    probability_of_improvement,
    resampled_difference,
)
from esper_lightning.evidence.intervals import Interval
from esper_lightning.evidence.report import table
from esper_lightning.evidence.rollouts.families import held_out_task
from esper_lightning.evidence.rollouts.schedules import schedules
from esper_lightning.leyline import EsperError, RunSummary, decode
from esper_lightning.simic.recording import SUMMARY_NAME
from esper_lightning.simic.reward import Utility, ending
from esper_lightning.simic.rollouts import Assignment, CarriesOut, Pair, decided_by
from esper_lightning.simic.validation import RIVALS

OBJECTIVE, MODE = "val/loss", "min"
"""What runs of ``train.py`` are measured by, unless they are told otherwise."""

HEURISTIC = "heuristic"

BEST = "best schedule"

FIRST_SEED, FIRST_OTHER_SEED = 100_000, 900_000
"""Of the contest, and of the choice among schedules; those of rollouts are below."""


class ContestFailed(EsperError):
    """Runs failed, so that there is nothing to compare."""


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What one run reached.

    Attributes:
        who: decided.
        task: name of it.
        seed: of the run.
        utility: beside its twin.
        parameters: times those of the host.
        flops: times those that its twin spent on training.
    """

    who: str
    task: str
    seed: int
    utility: float
    parameters: float
    flops: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one of them did.

    Attributes:
        who: decided.
        num: pairs of task and seed.
        utility: mean, beside the twins; intervals are over tasks, whose runs are averaged first.
        regret: mean of what the best schedule reached more.
        over_heuristic: mean of what it reached more than the heuristic.
        improvement: how probable it is that a run of it beats one of the heuristic; its interval
            is over runs.
        parameters: mean, times those of the host.
        flops: mean, times those of the twin.
    """

    who: str
    num: int
    utility: Interval
    regret: Interval
    over_heuristic: Interval
    improvement: Interval
    parameters: float
    flops: float


class Told(Protocol):
    """Takes a line for people."""

    def __call__(self, line: str, /) -> None:
        """One."""


def contest(
    carry_out: CarriesOut,
    policies: Mapping[str, Path],
    *,
    num_tasks: int,
    num_seeds: int,
    num_other_seeds: int,
    tell: Told,
) -> list[Worth]:
    """Run all of it.

    Args:
        carry_out: runs.
        policies: files of learned policies, by name; they take what is likeliest.
        num_tasks: held-out tasks.
        num_seeds: of each.
        num_other_seeds: by which the best schedule of each task is chosen.
        tell: of what was chosen.

    Raises:
        ContestFailed: a run failed.
    """
    tasks = [held_out_task(number) for number in range(num_tasks)]
    grid = schedules()
    deciding = {**RIVALS, **{name: decided_by(path) for name, path in policies.items()}}
    tried = _carried_out(
        carry_out,
        [
            (who, Assignment(task=task, seed=FIRST_OTHER_SEED + number, deciding=options))
            for task in tasks
            for number in range(num_other_seeds)
            for who, options in grid.items()
        ],
    )
    wanted = []
    for task in tasks:
        reached = {
            who: mean(each.utility for each in tried if (each.who, each.task) == (who, task.name))
            for who in grid
        }
        best = max(reached, key=reached.__getitem__)
        tell(f"{task.name}: the best schedule is {best}, {reached[best]:.3f}")
        for number in range(num_seeds):
            seed = FIRST_SEED + number
            options = {BEST: grid[best], **deciding}
            wanted += [
                (who, Assignment(task=task, seed=seed, deciding=each))
                for who, each in options.items()
            ]
    return _carried_out(carry_out, wanted)


def _carried_out(carry_out: CarriesOut, wanted: Sequence[tuple[str, Assignment]]) -> list[Worth]:
    pairs = carry_out([assignment for _, assignment in wanted])
    failed = [who for (who, _), pair in zip(wanted, pairs, strict=True) if pair is None]
    if failed:
        raise ContestFailed(
            f"{len(failed)} of {len(wanted)} runs failed, the first of {failed[0]}; the logs in "
            f"their folders say why; what ended well is not run again"
        )
    return [
        worth(who, assignment, pair)
        for (who, assignment), pair in zip(wanted, pairs, strict=True)
        if pair is not None
    ]


def worth(who: str, assignment: Assignment, pair: Pair) -> Worth:
    """What a run reached beside its twin, by their summaries."""
    run, twin = (_summary(folder) for folder in (pair.run, pair.twin))
    here, there = ending(run, OBJECTIVE), ending(twin, OBJECTIVE)
    spent = 1.0 if not here.flops or not there.flops else here.flops / there.flops
    return Worth(
        who=who,
        task=assignment.task.name,
        seed=assignment.seed,
        utility=Utility().of([here], [there], mode=MODE),
        parameters=here.parameters / there.parameters,
        flops=spent,
    )


def _summary(folder: Path) -> RunSummary:
    path = folder / SUMMARY_NAME
    found: RunSummary = decode(path.read_bytes(), RunSummary, what=str(path))
    return found


def results(found: Sequence[Worth]) -> list[Result]:
    """How each of them did, over the same pairs of task and seed."""
    by_who: dict[str, dict[tuple[str, int], Worth]] = {}
    for each in found:
        by_who.setdefault(each.who, {})[each.task, each.seed] = each
    pairs = list(by_who[BEST])
    reached = {who: [own[pair].utility for pair in pairs] for who, own in by_who.items()}
    on_tasks = {who: _on_tasks(found, who) for who in by_who}
    nothing = [0.0] * len(on_tasks[BEST])
    return [
        Result(
            who=who,
            num=len(pairs),
            utility=resampled_difference(on_tasks[who], nothing),
            regret=resampled_difference(on_tasks[BEST], on_tasks[who]),
            over_heuristic=resampled_difference(on_tasks[who], on_tasks[HEURISTIC]),
            improvement=probability_of_improvement(reached[who], reached[HEURISTIC]),
            parameters=mean(own[pair].parameters for pair in pairs),
            flops=mean(own[pair].flops for pair in pairs),
        )
        for who, own in by_who.items()
    ]


def halved(found: Sequence[Worth], who: str) -> Interval:
    """Half of the heuristic's regret less that of ``who``: above 0 where the goal is reached."""
    best, heuristic, own = (_on_tasks(found, name) for name in (BEST, HEURISTIC, who))
    half = [(most - rule) / 2 for most, rule in zip(best, heuristic, strict=True)]
    return resampled_difference(half, [most - one for most, one in zip(best, own, strict=True)])


def together(found: Sequence[Worth], names: Sequence[str], *, who: str) -> list[Worth]:
    """Several, such as policies of different training seeds, as one: their mean on each pair."""
    groups: dict[tuple[str, int], list[Worth]] = {}
    for each in found:
        if each.who in names:
            groups.setdefault((each.task, each.seed), []).append(each)
    return [
        Worth(
            who=who,
            task=task,
            seed=seed,
            utility=mean(each.utility for each in group),
            parameters=mean(each.parameters for each in group),
            flops=mean(each.flops for each in group),
        )
        for (task, seed), group in groups.items()
    ]


def _on_tasks(found: Sequence[Worth], who: str) -> list[float]:
    """Mean utility on each task: runs of one task are alike, and are not so many witnesses."""
    tasks: dict[str, list[float]] = {}
    for each in found:
        if each.who == who:
            tasks.setdefault(each.task, []).append(each.utility)
    return [mean(tasks[name]) for name in sorted(tasks)]


def render(found: Sequence[Result]) -> str:
    """A Markdown table, the best first."""
    header = ["who decides", "utility [95 %]", "regret", "over the heuristic", "P(better)"]
    rows = [
        [
            each.who,
            *map(str, (each.utility, each.regret, each.over_heuristic)),
            f"{each.improvement.value:.2f}",
            f"{each.parameters:.2f}",
            f"{each.flops:.2f}",
            str(each.num),
        ]
        for each in sorted(found, key=lambda each: -each.utility.value)
    ]
    return table([*header, "parameters", "FLOPs", "pairs"], rows)
