"""A recorded run's decisions once more."""

from pathlib import Path

from esper_lightning.leyline import InvalidArgument, SystemState
from esper_lightning.nissa.journal import JOURNAL_NAME, read_journal
from esper_lightning.tamiyo.policy import Choice, Policy, wait
from esper_lightning.tamiyo.recorded import recorded


class Replay(Policy):
    """Decides at each boundary what was decided there in a run that is over.

    A run of which the decisions depended on more than its configuration, on a controller in another
    process and its deadline, becomes the same run again. What was refused then is left out: it
    changed nothing.

    Args:
        journal: ``events.jsonl`` of that run, or its folder.

    Raises:
        InvalidArgument: none is named, or there is no such file.
        DecodeError: it is damaged.
    """

    name = "replay"

    def __init__(self, journal: Path | str | None) -> None:
        if journal is None:
            raise InvalidArgument(
                f"no journal is named: tamiyo.policy.journal=... takes {JOURNAL_NAME} of a run, or "
                "the run's folder"
            )
        path = Path(journal)
        path = path / JOURNAL_NAME if path.is_dir() else path
        if not path.is_file():
            raise InvalidArgument(
                f"there is no journal {path}; name {JOURNAL_NAME} of a run, or the run's folder"
            )
        self._choices = {
            (each.state.epoch, each.state.max_epochs): each.choices
            for each in recorded(read_journal(path))
        }

    def decide(self, state: SystemState) -> list[Choice]:
        """The choices of that boundary; to wait where none was recorded."""
        recorded = self._choices.get((state.epoch, state.max_epochs))
        return recorded or wait(f"nothing was decided at epoch {state.epoch}")
