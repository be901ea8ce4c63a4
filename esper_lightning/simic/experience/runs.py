"""Experience from the folders of finished runs."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from esper_lightning.leyline import EsperError, RunSummary, SystemState, decode
from esper_lightning.nissa.journal import read_journal, timeline
from esper_lightning.simic.episode import Episode
from esper_lightning.simic.experience.pairing import beginning, begins, is_alone, teaches
from esper_lightning.simic.experience.store import Experience
from esper_lightning.simic.experience.taught import episodes_of
from esper_lightning.simic.lesson import journals
from esper_lightning.simic.recording import FINISHED, SUMMARY_NAME, Recording, read
from esper_lightning.simic.reward import Utility
from esper_lightning.tamiyo import GrowthBudget
from esper_lightning.tamiyo.heuristic import BUDGET
from esper_lightning.tamiyo.recorded import recorded

log = logging.getLogger(__name__)

NameTask = Callable[[RunSummary | None, SystemState], str]
"""The name of what was trained, from the summary, if the run came to its end, and the first
boundary."""


def task_of(summary: RunSummary | None, first: SystemState) -> str:
    """Network, size and length: tasks that differ in data alone have one name.

    Args:
        summary: of a run that came to its end.
        first: its first boundary.
    """
    host = "network" if summary is None else summary.host
    return f"{host} of {first.host_parameters:,} parameters, {first.max_epochs} epochs"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    folder: Path
    run_id: str
    beginning: str
    is_twin: bool
    teaches: bool
    first: SystemState
    summary: RunSummary | None


class Runs:
    """Runs of ``train.py`` on disk, each beside the run without growth that began as it did.

    Recordings are of those in which a policy decided that tells its version and probabilities.

    Args:
        places: runs, or folders with any number of them below.
        task: names what was trained.
        utility: what episodes are measured by; None takes the defaults.
        budget: limits of growth, those of the policies that decided.

    Attributes:
        counts: of the last reading, of runs: ``recordings``, ``twins``, ``others`` (no such policy
            decided), ``alone`` (no twin was found), ``damaged``, ``torn`` (a boundary is missing)
            and ``known`` (left out as asked).
    """

    def __init__(
        self,
        places: Iterable[Path | str] | Path | str,
        *,
        task: NameTask = task_of,
        utility: Utility | None = None,
        budget: GrowthBudget = BUDGET,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._places = [places] if isinstance(places, Path | str) else list(places)
        self._task = task
        self._utility = utility
        self._budget = budget

    def recordings(self, *, but: Callable[[str], bool] = lambda _: False) -> Iterator[Recording]:
        """Of each run that has a twin.

        What cannot be read is logged and left out.

        Args:
            but: tells by its id a run that is left out.

        Raises:
            InvalidArgument: a place holds no run.
        """
        self.counts.clear()
        paths = dict.fromkeys(path.resolve() for path in journals(self._places))
        runs = [run for path in paths if (run := self._look(path)) is not None]
        twins = {run.beginning: run for run in reversed(runs) if run.is_twin}
        for run in runs:
            twin = twins.get(run.beginning)
            self.counts["twins"] += run.is_twin
            if not run.teaches:
                self.counts["others"] += not run.is_twin
            elif but(run.run_id):
                self.counts["known"] += 1
            elif twin is None:
                self.counts["alone"] += 1
                log.warning(
                    "%s is left out: no run of the same task and seed has nothing that grew; "
                    "train one with tamiyo=never",
                    run.folder,
                )
            else:
                yield from self._read(run, twin)

    def episodes(self) -> list[Episode]:
        """Of all runs in which a policy with probabilities decided."""
        return episodes_of(self.recordings(), utility=self._utility, budget=self._budget)

    def _look(self, journal: Path) -> _Run | None:
        folder = journal.parent
        try:
            events = timeline(read_journal(journal))
            path = folder / SUMMARY_NAME
            summary: RunSummary | None = None
            if path.is_file():
                summary = decode(path.read_bytes(), RunSummary, what=str(path))
        except EsperError as error:
            self._leave_out(folder, "damaged", error)
            return None
        found = recorded(events)
        states = [each.state for each in found]
        if not begins(states):
            self._leave_out(folder, "torn", "its first boundary, or another, is not there")
            return None
        is_over = summary is not None and summary.outcome == FINISHED
        return _Run(
            folder=folder,
            run_id=states[0].run_id,
            beginning=beginning(states[0]),
            is_twin=is_over and is_alone(states),
            teaches=teaches(found),
            first=states[0],
            summary=summary,
        )

    def _read(self, run: _Run, twin: _Run) -> Iterator[Recording]:
        assert twin.summary is not None
        try:
            found = read(
                run.folder,
                twin.folder,
                task=self._task(run.summary or twin.summary, run.first),
                seed=twin.summary.seed or 0,
            )
        except EsperError as error:
            self._leave_out(run.folder, "damaged", error)
            return
        self.counts["recordings"] += 1
        yield found

    def _leave_out(self, folder: Path, why: str, error: object) -> None:
        self.counts[why] += 1
        log.warning("%s is left out: %s", folder, error)


def from_runs(
    experience: Experience, places: Iterable[Path | str] | Path | str, *, task: NameTask = task_of
) -> Counter[str]:
    """Keep what runs on disk were; those that are in the store change nothing.

    Args:
        experience: where to.
        places: runs, or folders with any number of them below.
        task: names what was trained.

    Returns:
        How many were ``added``, and the counts of :class:`Runs`.

    Raises:
        InvalidArgument: a place holds no run.
        ExperienceFailed: the store cannot be written.
    """
    runs = Runs(places, task=task)
    added = sum(experience.add(each) for each in runs.recordings(but=experience.knows))
    return runs.counts + Counter(added=added)
