"""What the risk engine goes by."""

from dataclasses import dataclass

from esper_lightning.leyline.arguments import check_whole
from esper_lightning.tamiyo.budget import GrowthBudget, check_budget


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskRules:
    """Lengths are in boundaries that were assessed.

    Attributes:
        calm: a level falls once its signal stayed below the lower threshold for so many in a row.
        pause_limit: a seed may be found paused at so many, whoever paused it.
        rollback_every: the least from a rollback to an emergency's.
        red_window: two rises to RED within so many enter conservative mode.
        stay: conservative mode lasts at least so many, and twice as many each time it is entered
            anew.
        greens: so many GREEN ones in a row are needed to leave it.
        budget: what growth is measured against; None leaves parameters and FLOPs out of the
            resources that are watched.

    Raises:
        InvalidArgument: a length is no whole number of at least 1, or the budget is none.
    """

    calm: int = 3
    pause_limit: int = 4
    rollback_every: int = 5
    red_window: int = 12
    stay: int = 5
    greens: int = 3
    budget: GrowthBudget | None = None

    def __post_init__(self) -> None:
        for name in ("calm", "pause_limit", "rollback_every", "red_window", "stay", "greens"):
            check_whole(name, getattr(self, name), least=1)
        check_budget(self.budget)
