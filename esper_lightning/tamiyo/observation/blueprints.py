"""What is observed of a candidate blueprint."""

from esper_lightning.karn import Blueprint, Range, Tier
from esper_lightning.leyline import Attachment, FeatureKind
from esper_lightning.tamiyo.observation.scales import Features, count, flag, many_hot, one_hot
from esper_lightning.tamiyo.planting import LINEAR


def features(blueprint: Blueprint | None) -> Features:
    """Of one blueprint; of none, all of them missing."""
    if blueprint is None:
        return {
            **one_hot("tier", Tier, None),
            **one_hot("reads", Attachment, None),
            **many_hot("map", FeatureKind, None),
            **dict.fromkeys(("risk", "stage", "linear", "zero_at_birth", "sized")),
        }
    sized = any(isinstance(allowed, Range) for allowed in blueprint.parameters.values())
    return {
        **one_hot("tier", Tier, blueprint.tier),
        **one_hot("reads", Attachment, blueprint.attachment),
        **many_hot("map", FeatureKind, blueprint.kinds),
        "risk": blueprint.risk,
        "stage": count(blueprint.curriculum_stage - 1),
        "linear": flag(blueprint.name in LINEAR),
        "zero_at_birth": flag(blueprint.zero_at_birth),
        "sized": flag(sized),
    }


NAMES = tuple(features(None))
"""Of the features, in their order."""
