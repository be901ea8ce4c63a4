"""The learned policy: a network that points at what to do, where, with what and how large."""

from esper_lightning.tamiyo.learned.acting import Actor, Answered
from esper_lightning.tamiyo.learned.actions import Action, actions_of
from esper_lightning.tamiyo.learned.learned import Learned
from esper_lightning.tamiyo.learned.network import Architecture, Evaluation, PolicyNetwork
from esper_lightning.tamiyo.learned.stored import MAX_POLICY_BYTES, Card, StoredPolicy

__all__ = [
    "MAX_POLICY_BYTES",
    "Action",
    "Actor",
    "Answered",
    "Architecture",
    "Card",
    "Evaluation",
    "Learned",
    "PolicyNetwork",
    "StoredPolicy",
    "actions_of",
]
