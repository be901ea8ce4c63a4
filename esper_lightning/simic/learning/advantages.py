"""Advantages: how much better than expected it went after each decision.

N episodes of at most T steps stand side by side, padded at their ends. An episode that terminated
has nothing behind its last step; what was truncated would have gone on, and the value of what was
seen last stands for it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What the rewards of episodes say; 0 where there is no step.

    Attributes:
        advantages: ``(N, T)``.
        returns: ``(N, T)``, what the value network is to predict.
    """

    advantages: Tensor
    returns: Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    tails: Tensor,
    there: Tensor,
    *,
    discount: float = 1.0,
    decay: float = 0.95,
) -> Estimates:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    Args:
        rewards: ``(N, T)``.
        values: ``(N, T)``, of the states in which was decided.
        tails: ``(N,)``, of the state after the last step: 0 where the episode terminated.
        there: ``(N, T)``, True for steps, False for the padding behind them.
        discount: gamma.
        decay: lambda; 0 trusts the values, 1 the rewards.

    Raises:
        InvalidArgument: shapes that do not fit, padding before a step, or a number outside [0, 1].

    >>> one = torch.ones(1, 2)
    >>> gae(one, torch.zeros(1, 2), torch.tensor([5.0]), one.bool(), decay=1.0).advantages
    tensor([[7., 6.]])
    """
    return vtrace(
        rewards, values, tails, there, torch.zeros_like(values), discount=discount, decay=decay
    )


def vtrace(
    rewards: Tensor,
    values: Tensor,
    tails: Tensor,
    there: Tensor,
    log_ratios: Tensor,
    *,
    discount: float = 1.0,
    decay: float = 0.95,
    largest: float = 1.0,
) -> Estimates:
    """V-trace, of steps that another policy decided (Espeholt et al. 2018, arXiv:1802.01561).

    The returns are equation 1, with both bounds ``largest`` and lambda as in remark 2. The
    advantages are those of section 4.2, but that lambda weighs what comes after the next step, and
    without the ratio of the step itself, by which the loss weighs. Where both policies are the same
    this is :func:`gae`.

    Args:
        rewards: ``(N, T)``; likewise the others as for :func:`gae`.
        values: ``(N, T)``, of the policy that learns.
        tails: ``(N,)``.
        there: ``(N, T)``.
        log_ratios: ``(N, T)``: log-probability of what was done under the policy that learns, minus
            that under the one that did it.
        discount: gamma.
        decay: lambda.
        largest: ratios count as at most this.

    Raises:
        InvalidArgument: shapes that do not fit, padding before a step, or a number outside of what
            is allowed.
    """
    _check(rewards, values, tails, there, log_ratios)
    check_share("discount", discount)
    check_share("decay", decay)
    check_number("largest", largest)
    if not largest > 0:
        raise InvalidArgument(f"largest must be above 0, got {largest}")
    weights = log_ratios.exp().clamp(max=largest)
    last = there & ~torch.cat([there[:, 1:], torch.zeros_like(there[:, :1])], dim=1)
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    following = torch.where(last, tails[:, None], following)
    surprises = rewards + discount * following - values
    advantages, corrections = torch.zeros_like(values), torch.zeros_like(values)
    behind = torch.zeros_like(tails)
    for step in reversed(range(values.shape[1])):
        behind = torch.where(last[:, step], 0.0, behind)
        later = discount * decay * behind
        advantages[:, step] = surprises[:, step] + later
        behind = weights[:, step] * (surprises[:, step] + later)
        corrections[:, step] = behind
    return Estimates(
        advantages=torch.where(there, advantages, 0.0),
        returns=torch.where(there, values + corrections, 0.0),
    )


def normalised(advantages: Tensor) -> Tensor:
    """``(M,)`` brought to mean 0 and standard deviation 1; all 0 where they do not vary."""
    centred = advantages - advantages.mean()
    deviation = centred.square().mean().sqrt()
    smallest = torch.finfo(advantages.dtype).eps * advantages.abs().max().clamp(min=1)
    return torch.where(deviation > smallest, centred / deviation, torch.zeros_like(centred))


def check_share(name: str, value: object) -> None:
    """Refuse what is no number from 0 to 1.

    Raises:
        InvalidArgument: it is something else.
    """
    check_number(name, value)
    if not 0 <= float(str(value)) <= 1:
        raise InvalidArgument(f"{name} must be from 0 to 1, got {value}")


def _check(rewards: Tensor, values: Tensor, tails: Tensor, there: Tensor, ratios: Tensor) -> None:
    shapes = [tuple(each.shape) for each in (rewards, values, there, ratios)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or tails.shape != (shapes[0][0],):
        raise InvalidArgument(
            f"rewards, values, there and log_ratios are (N, T) and tails (N,), got {shapes} and "
            f"{tuple(tails.shape)}"
        )
    if (there[:, 1:] & ~there[:, :-1]).any():
        raise InvalidArgument("padding stands behind the steps of an episode, not before any")
