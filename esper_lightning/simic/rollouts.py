"""Rollouts: runs in which a policy decides, and what they teach.

Simic knows nothing of training. It is handed what draws tasks and what carries out runs; both speak
of a run as the options of a command line, which Simic passes on as they are.
"""

import hashlib
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from esper_lightning.leyline import EsperError, InvalidArgument
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.simic.episode import Episode
from esper_lightning.simic.recording import episode_of
from esper_lightning.simic.reward import Utility
from esper_lightning.tamiyo.learned import StoredPolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutTask:
    """What is trained.

    Attributes:
        name: the same for the same options.
        options: of a run.
    """

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One run that is to be carried out, beside its twin in which nothing grows.

    Attributes:
        task: of both.
        seed: of both: they have the same weights, batches and splits.
        deciding: options that say who decides.
    """

    task: RolloutTask
    seed: int
    deciding: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Folders of a run and its twin."""

    run: Path
    twin: Path


class CarriesOut(Protocol):
    """Carries out runs."""

    def __call__(self, assignments: Sequence[Assignment], /) -> Sequence[Pair | None]:
        """One for each assignment, in order; None of a run that failed."""


class RolloutsFailed(EsperError):
    """More than half of a round's runs failed."""


class Rollouts:
    """Makes the episodes of a round: runs in which a policy draws its choices.

    Each task is run several times with the same seed and another draw of the policy, so that what
    the draws led to is compared on the same weights and batches; these share a twin.

    Args:
        tasks: the task of a number.
        carry_out: carries out runs.
        folder: for the policies.
        num: runs a round.
        per_task: of them, on the same task and seed.
        seed: of tasks and draws.
        utility: what runs are measured by.

    Raises:
        InvalidArgument: a number that is not allowed.
    """

    def __init__(
        self,
        *,
        tasks: Callable[[int], RolloutTask],
        carry_out: CarriesOut,
        folder: Path | str,
        num: int = 64,
        per_task: int = 4,
        seed: int = 0,
        utility: Utility | None = None,
    ) -> None:
        check_whole("per_task", per_task, least=1)
        check_whole("num", num, least=per_task)
        check_whole("seed", seed, least=0)
        if num % per_task:
            raise InvalidArgument(
                f"num must be a multiple of per_task, got {num} runs, {per_task} on each task"
            )
        self._tasks, self._carry_out = tasks, carry_out
        self._folder = Path(folder).resolve()
        self._num, self._per_task = num, per_task
        self._seed = seed
        self._utility = utility

    def __call__(self, policy: StoredPolicy, number: int) -> list[Episode]:
        """The episodes of a round, 0-based; the same policy and round give the same.

        Raises:
            RolloutsFailed: more than half of the runs failed, or taught nothing.
        """
        assignments = self.assignments(self._kept(policy), number)
        pairs = self._carry_out(assignments)
        episodes = []
        for each, pair in zip(assignments, pairs, strict=True):
            found = None if pair is None else self._episode(each, pair)
            if found is not None:
                episodes.append(found)
        if 2 * len(episodes) < len(assignments):
            raise RolloutsFailed(
                f"of {len(assignments)} runs of round {number} only {len(episodes)} can be learned "
                f"from; the logs in the folders of the others say why"
            )
        if len(episodes) < len(assignments):
            log.warning(
                "%d of %d runs of round %d cannot be learned from",
                len(assignments) - len(episodes),
                len(assignments),
                number,
            )
        return episodes

    def assignments(self, policy: Path, number: int) -> list[Assignment]:
        """What is run in a round."""
        num_tasks = self._num // self._per_task
        found = []
        for place in range(num_tasks):
            which = number * num_tasks + place
            task = self._tasks(_mixed(self._seed, which))
            for draw in range(self._per_task):
                own = _mixed(self._seed, which, draw)
                deciding = drawn_by(policy, seed=own)
                found.append(Assignment(task=task, seed=which, deciding=deciding))
        return found

    def _kept(self, policy: StoredPolicy) -> Path:
        data = policy.to_bytes()
        path = self._folder / f"{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
        if not path.exists() or path.read_bytes() != data:
            self._folder.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
            part.write_bytes(data)
            part.replace(path)
        return path

    def _episode(self, assignment: Assignment, pair: Pair) -> Episode | None:
        try:
            return episode_of(
                pair.run,
                pair.twin,
                task=assignment.task.name,
                seed=assignment.seed,
                utility=self._utility,
            )
        except (EsperError, OSError) as error:
            log.warning("%s beside %s: %s", pair.run, pair.twin, error)
            return None


def drawn_by(policy: Path, *, seed: int) -> tuple[str, ...]:
    """Options of a run in which a policy draws its choices."""
    return (*decided_by(policy), "tamiyo.policy.sample=true", f"tamiyo.policy.seed={seed}")


def decided_by(policy: Path) -> tuple[str, ...]:
    """Options of a run in which a policy takes what is likeliest."""
    return ("tamiyo=learned", f"tamiyo.policy.policy='{policy}'")


def _mixed(*numbers: int) -> int:
    """One number of several, below 2^31."""
    told = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(told[:4], "little") >> 1
