"""One round: the steps of some episodes, and what is known of them before any is learned from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.simic.episode import Episode
from esper_lightning.simic.learning.advantages import normalised, vtrace
from esper_lightning.simic.learning.evaluation import Told, evaluate
from esper_lightning.simic.learning.rows import Minibatch, Rows, collate, fields_of
from esper_lightning.tamiyo.learned import Action, PolicyNetwork
from esper_lightning.tamiyo.learned.actions import STOP
from esper_lightning.tamiyo.learned.encoder import BLOCKED

CHUNK = 128
"""Boundaries that are evaluated at once: more take no less time each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The boundaries of episodes, side by side: the steps in order, then the tails.

    Attributes:
        rows: all of them; at a tail nothing was chosen, and NOOP stands for it.
        lengths: number of steps of each episode.
        cut: whether each is cut off, and so has a tail.
        ids: of the episodes.
    """

    rows: Rows
    lengths: tuple[int, ...]
    cut: tuple[bool, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """M steps to learn from; attributes as in :class:`Minibatch`.

    Attributes:
        rows: the boundaries and what was chosen there.
        logged: ``(M,)``; likewise the others.
        start: when the round began.
        base: of the base policy.
        before: values when the round began.
        advantages: normalised over the round.
        returns: what the values should be.
        weights: how much each counts; 1 on average.
        owners: ``(M,)``, which of the episodes it is a step of.
        priorities: of each episode, the mean of its absolute advantages before they were
            normalised: how much came otherwise than expected (Schaul et al. 2016,
            arXiv:1511.05952, section 3.3).
    """

    rows: Rows
    logged: Tensor
    start: Tensor
    base: Tensor
    before: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor
    owners: Tensor
    priorities: tuple[float, ...]

    def __len__(self) -> int:
        """M."""
        return len(self.logged)

    def minibatch(self, numbers: Tensor) -> Minibatch:
        """Some of the steps."""
        rows = self.rows.take(numbers)
        return Minibatch(
            seen=fields_of(rows.seen),
            chosen=rows.chosen,
            there=rows.there,
            logged=self.logged[numbers],
            start=self.start[numbers],
            base=self.base[numbers],
            before=self.before[numbers],
            advantages=self.advantages[numbers],
            returns=self.returns[numbers],
            weights=self.weights[numbers],
        )


def see(episodes: Sequence[Episode]) -> Seen:
    """Put the boundaries of episodes side by side.

    Raises:
        InvalidArgument: there is no episode, or one is cut off and does not tell what was seen
            last.
    """
    without = [each.id for each in episodes if not each.terminated and each.tail is None]
    if not episodes or without:
        raise InvalidArgument(
            f"episodes {without} are cut off and have no tail: the value of what was seen last "
            f"counts"
            if without
            else "there are no episodes to learn from"
        )
    steps = [step for each in episodes for step in each.steps]
    tails = [each.tail for each in episodes if not each.terminated and each.tail is not None]
    observations = [*(step.observation for step in steps), *tails]
    actions = [*(step.actions for step in steps), *[(Action(STOP),)] * len(tails)]
    return Seen(
        rows=collate(observations, actions),
        lengths=tuple(len(each.steps) for each in episodes),
        cut=tuple(not each.terminated for each in episodes),
        ids=tuple(each.id for each in episodes),
    )


@torch.no_grad()
def tell(network: PolicyNetwork, rows: Rows) -> Told:
    """What a network says of boundaries, without gradients, a few at once."""
    told = [
        evaluate(network, part.seen, part.chosen, part.there)
        for part in map(rows.take, torch.split(torch.arange(len(rows)), CHUNK))
    ]
    return Told(
        log_probabilities=torch.cat([each.log_probabilities for each in told]),
        entropies=torch.cat([each.entropies for each in told]),
        values=torch.cat([each.values for each in told]),
    )


def begin(
    episodes: Sequence[Episode], seen: Seen, own: Told, base: Told, *, discount: float, decay: float
) -> Round:
    """Advantages and returns of a round, by V-trace of the policy that learns.

    Runs of the same task and seed are each other's baseline, beside the value.

    Args:
        episodes: to learn from.
        seen: :func:`see` of them.
        own: what the policy that learns says of ``seen``.
        base: what its base says.
        discount: gamma.
        decay: lambda.

    Raises:
        InvalidArgument: a policy could not have chosen what an episode says, or its log-probability
            or a reward is not finite.
    """
    steps = [step for each in episodes for step in each.steps]
    num = len(steps)
    dtype = own.values.dtype
    logged = torch.tensor([step.log_probability for step in steps], dtype=dtype)
    rewards = torch.tensor([reward for each in episodes for reward in each.rewards], dtype=dtype)
    _check(episodes, logged, rewards, own.log_probabilities[:num])
    lengths = torch.tensor(seen.lengths)
    there = torch.arange(int(lengths.max())) < lengths[:, None]
    tails = torch.zeros(len(lengths), dtype=dtype)
    tails[torch.tensor(seen.cut)] = own.values[num:]
    estimates = vtrace(
        _spread(rewards, there),
        _spread(own.values[:num], there),
        tails,
        there,
        _spread(own.log_probabilities[:num] - logged, there),
        discount=discount,
        decay=decay,
    )
    advantages = _beside_each_other(episodes, estimates.advantages[there])
    by_episode = torch.split(advantages.abs(), list(seen.lengths))
    return Round(
        rows=seen.rows,
        logged=logged,
        start=own.log_probabilities[:num],
        base=base.log_probabilities[:num],
        before=own.values[:num],
        advantages=normalised(advantages),
        returns=estimates.returns[there],
        weights=torch.ones(num, dtype=dtype),
        owners=torch.arange(len(lengths)).repeat_interleave(lengths),
        priorities=tuple(float(part.mean()) for part in by_episode),
    )


def _beside_each_other(episodes: Sequence[Episode], advantages: Tensor) -> Tensor:
    """Advantages ``(M,)`` over those of the other runs of the same task and seed at that boundary.

    What makes a task easy is common to these, and is no credit of a decision: their mean is a
    baseline that need not be learned (as of a group of samples, Shao et al. 2024, arXiv:2402.03300,
    section 4.1). A run that is alone keeps its own.
    """
    groups: dict[tuple[str, int, int], list[int]] = {}
    number = 0
    for each in episodes:
        for place in range(len(each.steps)):
            groups.setdefault((each.task, each.seed, place), []).append(number)
            number += 1
    out = advantages.clone()
    for group in groups.values():
        if len(group) > 1:
            out[group] -= advantages[group].mean()
    return out


def _spread(steps: Tensor, there: Tensor) -> Tensor:
    """``(M,)`` to ``(N, T)``."""
    out = torch.zeros(there.shape, dtype=steps.dtype)
    out[there] = steps
    return out


def _check(episodes: Sequence[Episode], logged: Tensor, rewards: Tensor, own: Tensor) -> None:
    owners = [each.id for each in episodes for _ in each.steps]
    for what, bad in (
        ("a reward that is not finite", ~rewards.isfinite()),
        ("a log-probability that is not finite or above 0", ~logged.isfinite() | (logged > 1e-3)),
        ("an action that could not have been chosen", own < BLOCKED / 2),
    ):
        if bad.any():
            number = int(bad.nonzero()[0, 0])
            step = number - owners.index(owners[number])
            raise InvalidArgument(
                f"episode {owners[number]} has {what}, at step {step}; leave it out"
            )
