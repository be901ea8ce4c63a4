"""What recordings teach, each for itself."""

import logging
from collections.abc import Iterable

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.episode import Episode
from esper_lightning.simic.recording import Recording, episode
from esper_lightning.simic.reward import Utility
from esper_lightning.tamiyo import GrowthBudget

log = logging.getLogger(__name__)


def episodes_of(
    recordings: Iterable[Recording], *, utility: Utility | None, budget: GrowthBudget
) -> list[Episode]:
    """Of all that teach anything, in order; one that cannot be told is logged and left out.

    Args:
        recordings: of runs.
        utility: what they are measured by; None takes the defaults.
        budget: limits of growth, those of the policies that decided.
    """
    found = []
    for each in recordings:
        try:
            told = episode(each, utility=utility, budget=budget)
        except InvalidArgument as error:
            log.warning("run %s is left out: %s", each.run_id, error)
            continue
        if told is not None:
            found.append(told)
    return found
