"""How often a network does what its teacher does."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from esper_lightning.simic.lesson import Lesson
from esper_lightning.tamiyo.learned import Action, Actor, PolicyNetwork
from esper_lightning.tamiyo.observation import KINDS


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of boundaries, the network choosing what is likeliest.

    Attributes:
        boundaries: how many there were.
        acted: at how many of them the teacher acted.
        same: share at which all is the same: kinds, slots, blueprints and shares.
        same_acted: the same, of those at which the teacher acted.
        timing: share at which both act or both wait.
        timing_acted: share of those at which the teacher acted, where the network acts.
        kinds: share, of those at which the teacher acted, with the same kinds in the same slots.
        waits: what a network that always waits would have for ``same``.
    """

    boundaries: int
    acted: int
    same: float
    same_acted: float
    timing: float
    timing_acted: float
    kinds: float
    waits: float


def agreement(network: PolicyNetwork, lessons: Sequence[Lesson]) -> Agreement:
    """Compare at every boundary; the order of slots within one does not count."""
    actor = Actor(network)
    pairs = [
        (lesson.actions, actor.choose(lesson.observation, _likeliest).actions) for lesson in lessons
    ]
    acted = [pair for pair in pairs if len(pair[0]) > 1]
    return Agreement(
        boundaries=len(pairs),
        acted=len(acted),
        same=_share([set(wanted) == set(chosen) for wanted, chosen in pairs]),
        same_acted=_share([set(wanted) == set(chosen) for wanted, chosen in acted]),
        timing=_share([(len(wanted) > 1) == (len(chosen) > 1) for wanted, chosen in pairs]),
        timing_acted=_share([len(chosen) > 1 for _, chosen in acted]),
        kinds=_share([_kinds(wanted) == _kinds(chosen) for wanted, chosen in acted]),
        waits=_share([len(wanted) == 1 for wanted, _ in pairs]),
    )


def _likeliest(log_probabilities: npt.NDArray[np.float32]) -> int:
    return int(log_probabilities.argmax())


def _kinds(actions: Sequence[Action]) -> set[tuple[str, int]]:
    return {(KINDS[action.kind].value, action.slot) for action in actions}


def _share(there: Sequence[bool]) -> float:
    return sum(there) / len(there) if there else float("nan")
