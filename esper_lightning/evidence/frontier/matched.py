"""A folder of runs that are matched by task and seed: what is there, and what is to be done."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from esper_lightning.evidence.frontier import rows
from esper_lightning.evidence.frontier.arms import Arm, Done
from esper_lightning.evidence.frontier.pool import Run
from esper_lightning.evidence.frontier.rows import Row
from esper_lightning.evidence.frontier.tasks import LIMITS, Task
from esper_lightning.leyline import InvalidArgument

ROWS_NAME = "rows.jsonl"
QUIET = (
    "callbacks.live_table=null",
    "callbacks.growth_figure=null",
    "callbacks.model_summary=null",
)
BUDGET = ("trainer.max_", *LIMITS)
"""What the overrides begin with by which runs of one budget are told from those of another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matched:
    """Runs of several arms, on tasks, with seeds.

    Attributes:
        folder: of all runs and of their rows; absolute.
        arms: by name, an arm after those that it needs.
        commit: of the code.
        overrides: of ``train.py`` for every run, which come last.
        kept: the rows that are there.
    """

    folder: Path
    arms: Mapping[str, Arm]
    commit: str
    overrides: Sequence[str] = ()
    kept: dict[tuple[str, str, int], Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the rows that are there."""
        self.kept.update({row.key: row for row in rows.read(self.folder / ROWS_NAME)})

    def missing(
        self, tasks: Iterable[Task], names: Iterable[str], seeds: Iterable[int]
    ) -> list[Run]:
        """What is not there yet of some arms, seed by seed: an interruption leaves comparisons.

        Raises:
            InvalidArgument: runs with another budget are there.
        """
        tasks, names = list(tasks), list(names)
        for task in tasks:
            self._check_budget(task)
        return [
            self._run(task, name, seed)
            for seed in seeds
            for task in tasks
            for name in names
            if (task.name, name, seed) not in self.kept
        ]

    def _check_budget(self, task: Task) -> None:
        """Refuse rows of a task that were made with another budget.

        Only those that can be told without other runs; the rest follow from these.
        """
        for row in self.kept.values():
            arm = self.arms.get(row.arm)
            if row.task != task.name or arm is None or arm.needs:
                continue
            asked = self._overrides(task, arm, Done(task=task, rows={}))
            budget = {each for each in asked if each.lstrip("+").startswith(BUDGET)}
            if not budget <= set(row.overrides):
                raise InvalidArgument(
                    f"{self.folder} holds runs of {task.name} with another budget than the "
                    f"{task.epochs} epochs and {task.growth:g} times the host that are asked for, "
                    f"and would mix the two; give another --directory"
                )

    def _overrides(self, task: Task, arm: Arm, done: Done) -> list[str]:
        """Of a run of an arm, but for its seed."""
        return _once(
            [
                *task.overrides,
                *task.shaped(task.shape),
                f"trainer.max_epochs={task.epochs}",
                *arm.overrides(done),
                *self.overrides,
            ]
        )

    def _run(self, task: Task, arm: str, seed: int) -> Run:
        needs = self.arms[arm].needs

        def folder(name: str) -> Path:
            return self.folder / task.name / name / str(seed)

        def overrides() -> list[str]:
            known = {name: self.kept[task.name, name, seed] for name in needs}
            done = Done(task=task, rows=known)
            return [*QUIET, f"seed={seed}", *self._overrides(task, self.arms[arm], done)]

        def finish(used: Sequence[str]) -> None:
            row = rows.read_run(
                folder(arm),
                task=task.name,
                arm=arm,
                seed=seed,
                overrides=used,
                commit=self.commit,
            )
            rows.append(self.folder / ROWS_NAME, row)
            self.kept[row.key] = row

        return Run(
            name=f"{task.name}/{arm}/{seed}",
            needs=[f"{task.name}/{name}/{seed}" for name in needs],
            folder=folder(arm),
            overrides=overrides,
            finish=finish,
        )


def _once(overrides: Sequence[str]) -> list[str]:
    """The last override of each key: Hydra takes none twice."""
    latest = {override.lstrip("+").partition("=")[0]: override for override in overrides}
    return list(latest.values())
