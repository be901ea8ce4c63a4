"""Episodes for the tests: real observations, decided by a policy that draws."""

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from math import exp
from pathlib import Path

from esper_lightning.simic import lessons
from esper_lightning.simic.episode import Episode, Step
from esper_lightning.tamiyo.learned import Action, Actor, StoredPolicy
from esper_lightning.tamiyo.observation import Observation

RUN = Path(__file__).parents[2] / "docs" / "results" / "explained" / "events.jsonl"

Reward = Callable[[Observation, Sequence[Action]], float]


@cache
def observations() -> tuple[Observation, ...]:
    """Of a recorded run of 40 epochs."""
    return tuple(lesson.observation for lesson in lessons(RUN))


def acting(_: Observation, actions: Sequence[Action]) -> float:
    """Each action but the last costs; to wait earns nothing."""
    return -0.1 * (len(actions) - 1)


def episode(
    policy: StoredPolicy,
    *,
    seed: int,
    length: int = 6,
    reward: Reward = acting,
    cut: bool = False,
    among: Sequence[int] | None = None,
) -> Episode:
    """Some boundaries of the run in their order, as ``policy`` decides there."""
    draw = random.Random(seed)
    seen = observations()
    places = sorted(draw.sample(list(among or range(len(seen) - 1)), length))
    actor = Actor(policy.network)

    def pick(odds):
        return draw.choices(range(len(odds)), weights=[exp(x) for x in odds])[0]

    answered = [actor.choose(seen[place], pick) for place in places]
    utility = 0.0
    told = [utility]
    for place, each in zip(places, answered, strict=True):
        utility += reward(seen[place], each.actions)
        told.append(utility)
    steps = tuple(
        Step(
            observation=seen[place],
            actions=each.actions,
            log_probability=sum(each.log_probabilities),
            version=policy.card.version,
            potential=before,
        )
        for place, each, (before, _) in zip(places, answered, pairwise(told), strict=True)
    )
    return Episode(
        id=hashlib.sha256(f"{seed} {policy.card.version}".encode()).hexdigest(),
        task="digits",
        seed=seed,
        policy=policy.card.name,
        steps=steps,
        utility=utility,
        terminated=not cut,
        tail=seen[-1] if cut else None,
    )


def episodes(policy: StoredPolicy, num: int, *, first: int = 0, **options) -> list[Episode]:
    """Every third is cut off."""
    return [
        episode(policy, seed=seed, cut=seed % 3 == 2, length=4 + seed % 4, **options)
        for seed in range(first, first + num)
    ]


class Sampled:
    """A source of such episodes, for configurations.

    Args:
        num: of them.
        first: seed of the first.
    """

    def __init__(self, num: int = 8, first: int = 0) -> None:
        self._num, self._first = num, first

    def episodes(self) -> list[Episode]:
        return episodes(StoredPolicy.load("cloned"), self._num, first=self._first)


class Rollouts:
    """Makes such episodes with the policy that it is handed.

    Args:
        num: of them, each round.
    """

    def __init__(self, num: int = 6) -> None:
        self._num = num

    def __call__(self, policy: StoredPolicy, number: int) -> list[Episode]:
        return episodes(policy, self._num, first=100 * number)
