"""What a teacher would have done at the boundaries of recorded runs."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from esper_lightning.karn import CATALOGUE
from esper_lightning.leyline import InvalidArgument
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal
from esper_lightning.tamiyo import GrowthBudget, Heuristic
from esper_lightning.tamiyo.heuristic import BUDGET
from esper_lightning.tamiyo.learned import Action, actions_of
from esper_lightning.tamiyo.observation import Observation, Observer
from esper_lightning.tamiyo.recorded import recorded
from esper_lightning.tamiyo.shortlist import Shortlist
from esper_lightning.tamiyo.trial import is_last


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One boundary, and what is to be done there.

    Attributes:
        observation: what a learned policy sees.
        actions: the teacher's; the last is NOOP.
    """

    observation: Observation
    actions: tuple[Action, ...]

    @property
    def acts(self) -> bool:
        """Whether the teacher does anything."""
        return len(self.actions) > 1


def journals(places: Iterable[Path | str]) -> list[Path]:
    """The journals of runs: each place is one, or a folder with any number of them below it.

    Raises:
        InvalidArgument: a place holds none.
    """
    found: list[Path] = []
    for place in map(Path, places):
        here = sorted(place.rglob(JOURNAL_NAME)) if place.is_dir() else [place]
        if not here or not all(path.is_file() for path in here):
            raise InvalidArgument(
                f"there is no {JOURNAL_NAME} in {place}; name runs of train.py, or a folder of "
                "them such as multirun/"
            )
        found += here
    return found


def lessons(journal: Path, *, budget: GrowthBudget = BUDGET) -> list[Lesson]:
    """What the heuristic would have done at each boundary of one run, whoever decided there.

    It remembers the run as it was, not what it would have done itself. Last boundaries are left
    out, since no policy decides there.

    Args:
        journal: of the run.
        budget: limits of growth, of teacher and pupil.

    Raises:
        DecodeError: the journal is damaged.
    """
    teacher = Heuristic(budget=budget)
    observer = Observer(Shortlist(), budget)
    found = []
    for boundary in recorded(read_journal(journal)):
        state = boundary.state
        if is_last(state):
            continue
        observation = observer.observe(state)
        asked = deepcopy(teacher)
        actions = actions_of(observation, asked.decide(state), state=state, catalogue=CATALOGUE)
        found.append(Lesson(observation=observation, actions=tuple(actions)))
        teacher.remember(state, boundary.choices)
        observer.note(state, boundary.choices)
    return found
