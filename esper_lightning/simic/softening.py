"""A policy that is less sure of itself: where to begin when it is to find out more."""

import copy

import torch

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number
from esper_lightning.tamiyo.learned import StoredPolicy

SCORES = ("kind", "slot_key", "blueprint_key", "pair_score", "share")
"""Layers of the decoder in which its scores are linear."""


def softened(policy: StoredPolicy, temperature: float) -> StoredPolicy:
    """The policy with all its scores divided by a temperature.

    A cloned policy does what its teacher did with probabilities so near 1 that sampling it tries
    next to nothing else, and PPO learns from what was tried. What is likeliest stays so within a
    factor; a kind that many slots could take gains a little, as its score is that of all of them
    together. Name, version and value stay.

    Args:
        policy: to be softened.
        temperature: 1 changes nothing; above it is softer, below it is surer.

    Raises:
        InvalidArgument: it is not above 0 and finite.
    """
    check_number("temperature", temperature)
    if not 0 < temperature < float("inf"):
        raise InvalidArgument(f"temperature must be above 0, got {temperature}")
    if temperature == 1:
        return policy
    network = copy.deepcopy(policy.network)
    with torch.no_grad():
        for name in SCORES:
            for parameter in network.decoder.get_submodule(name).parameters():
                parameter.div_(temperature)
    return StoredPolicy.of(
        network,
        name=policy.card.name,
        version=policy.card.version,
        provenance={**policy.card.provenance, "temperature": temperature},
    )
