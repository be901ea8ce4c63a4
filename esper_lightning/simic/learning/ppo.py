"""The loss of PPO, and what is told beside it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOConfig:
    """How far one round may go, and what weighs how much.

    Attributes:
        ratio: epsilon: the ratio of probabilities counts from 1 - epsilon to 1 + epsilon.
        value: a value counts within this of what it was before the round; None for any.
        value_weight: of the value's loss.
        entropy_weight: of the entropy, which is sought.
        base_weight: of the divergence from the base policy.

    Raises:
        InvalidArgument: a number outside of what is allowed.
    """

    ratio: float = 0.2
    value: float | None = None
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    base_weight: float = 0.0

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio)
        check_number("value", self.value, or_none=True)
        if not 0 < self.ratio < 1 or not (self.value is None or self.value > 0):
            raise InvalidArgument(
                f"ratio must be between 0 and 1, value above 0 or null, got {self.ratio} and "
                f"{self.value}"
            )
        for name in ("value_weight", "entropy_weight", "base_weight"):
            check_number(name, getattr(self, name))
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidArgument(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The loss of a minibatch, and its terms without their weights; each a scalar.

    Attributes:
        loss: to be made small.
        policy: minus the clipped surrogate.
        value: half the mean squared error, or its clipped form.
        entropy: in nats per boundary.
        base: divergence from the base, in nats.
        clipped: share of boundaries whose ratio is outside of what counts.
    """

    loss: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    base: Tensor
    clipped: Tensor


def ppo(
    log_probabilities: Tensor,
    entropies: Tensor,
    values: Tensor,
    *,
    logged: Tensor,
    advantages: Tensor,
    returns: Tensor,
    before: Tensor,
    base: Tensor,
    weights: Tensor,
    config: PPOConfig,
) -> Terms:
    """The loss of PPO (Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9).

    What was chosen at a boundary counts as one action, whose log-probability is the sum of those of
    its parts. The value may be clipped as in the authors' code, about its value before the round.
    The divergence from the base is :func:`kl` of the policy, by what was chosen; as a loss it pulls
    towards the base (Shao et al. 2024, arXiv:2402.03300, equation 4).

    Args:
        log_probabilities: ``(M,)``, of what was chosen, with gradients; likewise the next two.
        entropies: ``(M,)``.
        values: ``(M,)``.
        logged: ``(M,)``, log-probabilities of the policy that chose, as it logged them.
        advantages: ``(M,)``.
        returns: ``(M,)``, what the values should be.
        before: ``(M,)``, the values before the round.
        base: ``(M,)``, log-probabilities of the base policy.
        weights: ``(M,)``, how much each boundary counts.
        config: limits and weights of the terms.
    """
    ratios = (log_probabilities - logged).exp()
    within = ratios.clamp(1 - config.ratio, 1 + config.ratio)
    policy = -(weights * torch.minimum(ratios * advantages, within * advantages)).mean()
    errors = (values - returns).square()
    if config.value is not None:
        near = before + (values - before).clamp(-config.value, config.value)
        errors = torch.maximum(errors, (near - returns).square())
    value = 0.5 * (weights * errors).mean()
    entropy = (weights * entropies).mean()
    apart = kl(log_probabilities, base, weights)
    loss = (
        policy
        + config.value_weight * value
        - config.entropy_weight * entropy
        + config.base_weight * apart
    )
    return Terms(
        loss=loss,
        policy=policy.detach(),
        value=value.detach(),
        entropy=entropy.detach(),
        base=apart.detach(),
        clipped=(ratios != within).to(ratios.dtype).mean(),
    )


def kl(own: Tensor, other: Tensor, weights: Tensor | None = None) -> Tensor:
    """KL divergence of ``own`` from ``other`` in nats, by samples of ``own``: at least 0.

    The estimator k3 of Schulman 2020 ("Approximating KL divergence", joschu.net): ``r - 1 - log r``
    with ``r = other / own``, which is unbiased and never negative.

    Args:
        own: ``(M,)``, log-probabilities of the policy that chose.
        other: ``(M,)``, those of another.
        weights: ``(M,)``, how much each counts; None for all alike.
    """
    apart = other - own
    found = apart.expm1() - apart
    return (found if weights is None else weights * found).mean()


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """Share of the returns' variance that the values explain; at most 1, NaN without variance."""
    spread = returns.var(correction=0)
    left = (returns - values).var(correction=0)
    return (1 - left / spread).item() if spread > 0 else float("nan")
