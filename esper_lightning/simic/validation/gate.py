"""The gate that a policy passes before it is published: it behaves, and it decides better."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.nissa.versions import versions
from esper_lightning.simic.rollouts import RolloutTask
from esper_lightning.simic.validation.checks import check_policy
from esper_lightning.simic.validation.comparison import Measured
from esper_lightning.simic.validation.rule import CANDIDATE, CURRENT, Rule, differences
from esper_lightning.simic.validation.verdict import Judged, Verdict, objections
from esper_lightning.tamiyo.learned import StoredPolicy

log = logging.getLogger(__name__)

RIVALS: Mapping[str, tuple[str, ...]] = {
    "heuristic": ("tamiyo=heuristic",),
    "random": ("tamiyo=random",),
    "never": ("tamiyo=never",),
    "periodic": ("tamiyo=periodic",),
}
"""Options of who decides beside the two policies, by name, with their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run that is asked for.

    Attributes:
        who: decides, by name.
        deciding: the policy that does; or options of a run that say who does.
        task: what is trained.
        seed: of the run, and of the twin that it is measured beside.
    """

    who: str
    deciding: StoredPolicy | tuple[str, ...]
    task: RolloutTask
    seed: int


class Utilities(Protocol):
    """Says what runs reached: :class:`~esper_lightning.simic.validation.runs.UtilitiesOfRuns`."""

    def __call__(self, trials: Sequence[Trial], /) -> Sequence[float | None]:
        """One for each trial, in order; None of a run that failed.

        Runs of the same task and seed are measured beside the same twin.
        """


class Gate:
    """Judges policies on the same tasks and seeds.

    Args:
        utilities: says what runs reached.
        tasks: that neither policy learned from.
        seeds: of each.
        rule: what has to be shown.
        rivals: options of who else decides, by name; those of ``rule.better_than`` among them. None
            takes :data:`RIVALS`.
        num_states: hostile states for each check of conduct, at least 10.

    Raises:
        InvalidArgument: tasks or seeds are fewer than the rule asks for or stand twice, or a rival
            of the rule is missing.
    """

    def __init__(
        self,
        *,
        utilities: Utilities,
        tasks: Sequence[RolloutTask],
        seeds: Sequence[int],
        rule: Rule | None = None,
        rivals: Mapping[str, tuple[str, ...]] | None = None,
        num_states: int = 60,
    ) -> None:
        self._rule = rule or Rule()
        check_whole("num_states", num_states, least=10)
        names = {task.name for task in tasks}
        if len(names) < len(tasks) or len(set(seeds)) < len(seeds):
            raise InvalidArgument(
                f"no task and no seed stands twice, got {len(tasks)} tasks of {len(names)} names "
                f"and the seeds {list(seeds)}"
            )
        if len(names) < self._rule.min_tasks or len(seeds) < self._rule.min_seeds:
            raise InvalidArgument(
                f"the rule asks for {self._rule.min_tasks} tasks with {self._rule.min_seeds} seeds "
                f"each, got {len(names)} with {len(seeds)}: name more"
            )
        self._rivals = dict(RIVALS if rivals is None else rivals)
        missing = {*self._rule.better_than} - self._rivals.keys()
        if missing or {CANDIDATE, CURRENT} & self._rivals.keys():
            raise InvalidArgument(
                f"rivals have names of their own, and those of better_than are among them; got "
                f"{sorted(self._rivals)} for {list(self._rule.better_than)}"
            )
        self._utilities = utilities
        self._tasks, self._seeds = tuple(tasks), tuple(seeds)
        self._num_states = num_states

    def __call__(self, candidate: StoredPolicy, current: StoredPolicy) -> Verdict:
        """Judge a policy beside the one that it would replace.

        Conduct is checked first: of a policy that breaks its promises nothing is run.

        Raises:
            InvalidArgument: the two have different names, so that one would not replace the other,
                or the same weights.
        """
        if candidate.card.name != current.card.name:
            raise InvalidArgument(
                f"{candidate.card.name!r} does not replace {current.card.name!r}: a policy takes "
                "over from one of its name"
            )
        judged, beside = Judged.of(candidate), Judged.of(current)
        if judged.weights == beside.weights:
            raise InvalidArgument(
                f"{judged} has the weights of {beside}, which it would replace: there is nothing "
                "to judge"
            )
        checks, timing = check_policy(candidate, num=self._num_states)
        measured: tuple[Measured, ...] = ()
        if all(check.passed for check in checks):
            measured = self._measured(candidate, current)
        against = objections(checks, measured, self._rule)
        found = differences(measured, self._rule)
        return Verdict(
            passed=not against,
            reasons=against or tuple(str(each) for each in found),
            candidate=judged,
            current=beside,
            rule=self._rule,
            checks=checks,
            timing=timing,
            differences=found,
            measured=measured,
            tasks={task.name: task.options for task in self._tasks},
            versions=versions(),
        )

    def _measured(self, candidate: StoredPolicy, current: StoredPolicy) -> tuple[Measured, ...]:
        deciding: dict[str, StoredPolicy | tuple[str, ...]] = {
            CANDIDATE: candidate,
            CURRENT: current,
            **self._rivals,
        }
        trials = [
            Trial(who=who, deciding=each, task=task, seed=seed)
            for task in self._tasks
            for seed in self._seeds
            for who, each in deciding.items()
        ]
        log.info("%d runs on %d tasks", len(trials), len(self._tasks))
        told = self._utilities(trials)
        reached: dict[tuple[str, int], dict[str, float | None]] = {}
        for trial, utility in zip(trials, told, strict=True):
            key = trial.task.name, trial.seed
            reached.setdefault(key, {})[trial.who] = utility
        return tuple(
            Measured(task=task, seed=seed, utilities=each) for (task, seed), each in reached.items()
        )
