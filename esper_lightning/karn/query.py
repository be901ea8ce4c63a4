"""Questions to the catalogue."""

from collections.abc import Collection
from fnmatch import fnmatchcase

from esper_lightning.karn.blueprint import Blueprint, Tier
from esper_lightning.karn.catalogue import CATALOGUE
from esper_lightning.leyline import Attachment, SlotShape

PRODUCTION_ONLY = frozenset({Tier.PRODUCTION})


def fitting(
    shape: SlotShape,
    *,
    tiers: Collection[Tier] = PRODUCTION_ONLY,
    attachment: Attachment | None = None,
    zero_at_birth: bool | None = None,
    max_parameters: int | None = None,
    max_flops: int | None = None,
    max_stage: int | None = None,
    name: str = "*",
) -> list[Blueprint]:
    """The blueprints that can be built for ``shape``, in the order of their ids.

    Args:
        shape: of the slot.
        tiers: allowed tiers.
        attachment: series or parallel; None for both.
        zero_at_birth: only those that are silent at birth (True) or that are not (False).
        max_parameters: budget for the default constructor parameters.
        max_flops: budget for the default constructor parameters, forward FLOPs of one sample.
        max_stage: highest curriculum stage.
        name: shell pattern, for example ``parallel_*``.
    """
    found = []
    for blueprint in CATALOGUE.values():
        if (
            blueprint.tier not in tiers
            or attachment not in (None, blueprint.attachment)
            or zero_at_birth not in (None, blueprint.zero_at_birth)
            or (max_stage is not None and blueprint.curriculum_stage > max_stage)
            or not fnmatchcase(blueprint.name, name)
            or not blueprint.fits(shape)
        ):
            continue
        cost = blueprint.cost(shape)
        if max_parameters is not None and cost.parameters > max_parameters:
            continue
        if max_flops is not None and cost.flops > max_flops:
            continue
        found.append(blueprint)
    return found
