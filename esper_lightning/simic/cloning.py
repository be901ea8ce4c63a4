"""Behaviour cloning: a network learns to do what its teacher did."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_whole
from esper_lightning.simic.lesson import Lesson
from esper_lightning.tamiyo.learned import Architecture, PolicyNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloned:
    """A network, and how it came to be.

    Attributes:
        network: of the epoch with the least loss on lessons it did not learn from.
        epoch: that epoch, 0-based.
        losses: after each epoch, on those lessons, in nats per boundary.
    """

    network: PolicyNetwork
    epoch: int
    losses: tuple[float, ...]


def clone(
    lessons: Sequence[Lesson],
    held_out: Sequence[Lesson],
    *,
    architecture: Architecture | None = None,
    epochs: int = 30,
    batch_size: int = 64,
    rate: float = 1e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> Cloned:
    """Learn by maximum likelihood of the teacher's actions (Pomerleau 1991).

    AdamW with a cosine to zero. Lessons in which the teacher acts are few and
    are drawn as often as the others, which weights the loss; without it a network that always waits
    is hard to beat. The same lessons and seed give the same network on one thread.

    Args:
        lessons: to learn from.
        held_out: tell which epoch's network is kept; of other runs.
        architecture: of the network.
        epochs: passes over as many lessons as there are.
        batch_size: boundaries a step.
        rate: highest learning rate.
        weight_decay: of AdamW.
        seed: of weights and order.

    Raises:
        InvalidArgument: there are no lessons, or an argument is not allowed.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        check_whole(name, value, least=1)
    if not lessons or not held_out:
        raise InvalidArgument(
            f"cloning needs lessons to learn from and others to judge by, got {len(lessons)} and "
            f"{len(held_out)}"
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PolicyNetwork(architecture)
    network.fit([lesson.observation for lesson in lessons])
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=weight_decay)
    steps = epochs * -(-len(lessons) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weights = _weights(lessons)
    losses: list[float] = []
    best = copy.deepcopy(network.state_dict())
    for epoch in range(epochs):
        drawn = torch.multinomial(weights, len(lessons), replacement=True, generator=generator)
        network.train()
        for numbers in torch.split(drawn, batch_size):
            loss = _loss(network, [lessons[number] for number in numbers.tolist()])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        losses.append(_held_out_loss(network, held_out, batch_size))
        log.info("epoch %d: %.4f nats on held-out boundaries", epoch, losses[-1])
        if losses[-1] == min(losses):
            best = copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    network.eval()
    return Cloned(network=network, epoch=losses.index(min(losses)), losses=tuple(losses))


def _weights(lessons: Sequence[Lesson]) -> Tensor:
    """Chances of being drawn: those in which the teacher acts are half of all."""
    acts = torch.tensor([lesson.acts for lesson in lessons])
    num = acts.sum().item()
    if num in (0, len(lessons)):
        return torch.ones(len(lessons))
    return torch.where(acts, 0.5 / num, 0.5 / (len(lessons) - num))


def _loss(network: PolicyNetwork, lessons: Sequence[Lesson]) -> Tensor:
    """Mean negative log-likelihood of a boundary, in nats."""
    told = network.evaluate(
        [lesson.observation for lesson in lessons], [lesson.actions for lesson in lessons]
    )
    return -told.log_probabilities.sum(dim=1).mean()


def _held_out_loss(network: PolicyNetwork, lessons: Sequence[Lesson], batch_size: int) -> float:
    network.eval()
    with torch.inference_mode():
        total = sum(
            _loss(network, part).item() * len(part)
            for part in (
                lessons[start : start + batch_size] for start in range(0, len(lessons), batch_size)
            )
        )
    return total / len(lessons)
