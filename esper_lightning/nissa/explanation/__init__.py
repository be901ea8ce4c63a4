"""A run explained decision by decision, as a page of Markdown, from its record alone."""

from collections.abc import Sequence

from esper_lightning.leyline import Event, InvalidArgument, Risk, RunSummary, SystemState
from esper_lightning.nissa.explanation.boundary import boundary
from esper_lightning.nissa.explanation.closing import closing
from esper_lightning.nissa.explanation.fates import fates
from esper_lightning.nissa.explanation.opening import opening
from esper_lightning.nissa.explanation.quiet import quiet, runs
from esper_lightning.nissa.explanation.story import Story, story
from esper_lightning.nissa.history import history

__all__ = ["explanation"]


def explanation(events: Sequence[Event], summary: RunSummary | None = None) -> str:
    """A page for someone who trains networks and has never seen one grow.

    What a controller saw, what it chose and why, what was refused, what happened, what it was
    worth; then what grew and what it cost. The same record gives the same page.

    Args:
        events: of one run, whole or not, resumed or not, as ``read_journal`` returns them.
        summary: of the same run; adds the test split, wall time and the cost of the host alone.

    Returns:
        Markdown. What is quoted from the record cannot become markup.

    Raises:
        InvalidArgument: there is no event, or events or summary are of several runs.
    """
    told = story(events)
    if summary is not None and summary.run_id != told.run_id:
        raise InvalidArgument(
            f"the summary is of run {summary.run_id!r}, the events are of run {told.run_id!r}; "
            "give both of one run"
        )
    past = history(events) if told.states else None
    found = fates(told)
    lines = opening(told, past, found, summary) + _decisions(told)
    lines += closing(told, past, found, summary)
    return "\n".join(lines).rstrip() + "\n"


def _decisions(told: Story) -> list[str]:
    lines = ["## The decisions", ""]
    before: SystemState | None = None
    risk: Risk | None = None
    # What slots do before the first epoch is to learn their shapes, which the opening tells.
    chapters = [each for each in told.chapters if each.epoch >= 0 or each.acts]
    for group in runs(chapters):
        if group[0].is_quiet and group[0].state is not None:
            lines += quiet(group, risk, policy=told.policy)
        else:
            lines += boundary(group[0], before, risk, policy=told.policy)
        for chapter in group:
            before = chapter.state or before
            risk = chapter.risk or risk
    return lines if chapters else [*lines, "None was made.", ""]
