"""Evidence: what growth is worth, on runs that are matched by data, seed and schedule.

``python -m esper_lightning.evidence`` runs the frontier benchmark: tasks, arms and seeds as
processes of ``train.py``, whose ``summary.json`` and ``events.jsonl`` it reads. With ``overhead``,
``incubation``, ``planting`` or ``memory`` behind it, it measures what dormant slots, seeds in
isolation and a growth event cost, and what planting and culling leave behind. Nothing imports this
package.
"""

from esper_lightning.evidence.frontier.arms import ARMS, Arm
from esper_lightning.evidence.frontier.goals import GOALS, Finding, Goal, judge
from esper_lightning.evidence.frontier.outcomes import Outcome, outcomes
from esper_lightning.evidence.frontier.rows import Judgement, Point, Row
from esper_lightning.evidence.frontier.tasks import TASKS, Task
from esper_lightning.evidence.frontier.twins import Twins, agreement, twins

__all__ = [
    "ARMS",
    "GOALS",
    "TASKS",
    "Arm",
    "Finding",
    "Goal",
    "Judgement",
    "Outcome",
    "Point",
    "Row",
    "Task",
    "Twins",
    "agreement",
    "judge",
    "outcomes",
    "twins",
]
