"""Questions to the catalogue."""

from collections.abc import Collection
from fnmatch import fnmatchcase

from esper_lightning.karn.blueprint import Blueprint, Tier
from esper_lightning.karn.catalogue import CATALOGUE
from esper_lightning.leyline import Attachment, FeatureKind, SlotShape

PRODUCTION_ONLY = frozenset({Tier.PRODUCTION})

NUM_CONSERVATIVE = 10
"""How many blueprints, those of the lowest risk, conservative mode leaves."""


def query(
    *,
    kind: FeatureKind | None = None,
    tiers: Collection[Tier] = PRODUCTION_ONLY,
    attachment: Attachment | None = None,
    zero_at_birth: bool | None = None,
    max_risk: float = 1.0,
    max_stage: int | None = None,
    name: str = "*",
    conservative: bool = False,
) -> list[Blueprint]:
    """The blueprints for which all of this holds, in the order of their ids.

    Args:
        kind: feature maps that it takes; None for all.
        tiers: allowed tiers.
        attachment: series or parallel; None for both.
        zero_at_birth: only those that are silent at birth (True) or that are not (False).
        max_risk: highest risk.
        max_stage: highest curriculum stage.
        name: shell pattern, for example ``parallel_*``.
        conservative: only from the :data:`NUM_CONSERVATIVE` production blueprints with the lowest
            risk, whatever ``tiers`` allows.
    """
    trusted = _trusted() if conservative else frozenset(CATALOGUE)
    return [
        blueprint
        for blueprint in CATALOGUE.values()
        if blueprint.name in trusted
        and (conservative or blueprint.tier in tiers)
        and (kind is None or kind in blueprint.kinds)
        and attachment in (None, blueprint.attachment)
        and zero_at_birth in (None, blueprint.zero_at_birth)
        and blueprint.risk <= max_risk
        and (max_stage is None or blueprint.curriculum_stage <= max_stage)
        and fnmatchcase(blueprint.name, name)
    ]


def fitting(
    shape: SlotShape,
    *,
    tiers: Collection[Tier] = PRODUCTION_ONLY,
    attachment: Attachment | None = None,
    zero_at_birth: bool | None = None,
    max_parameters: int | None = None,
    max_flops: int | None = None,
    max_risk: float = 1.0,
    max_stage: int | None = None,
    name: str = "*",
    conservative: bool = False,
) -> list[Blueprint]:
    """The blueprints of :func:`query` that can be built for ``shape``, within a budget.

    Args:
        shape: of the slot.
        tiers: see :func:`query`, as all that is not explained here.
        attachment: as there.
        zero_at_birth: as there.
        max_parameters: budget for the default constructor parameters.
        max_flops: budget for the default constructor parameters, forward FLOPs of one sample.
        max_risk: as there.
        max_stage: as there.
        name: as there.
        conservative: as there.
    """
    asked = query(
        tiers=tiers,
        attachment=attachment,
        zero_at_birth=zero_at_birth,
        max_risk=max_risk,
        max_stage=max_stage,
        name=name,
        conservative=conservative,
    )
    found = []
    for blueprint in asked:
        if not blueprint.fits(shape):
            continue
        cost = blueprint.cost(shape)
        if max_parameters is not None and cost.parameters > max_parameters:
            continue
        if max_flops is not None and cost.flops > max_flops:
            continue
        found.append(blueprint)
    return found


def _trusted() -> frozenset[str]:
    """Names of the production blueprints with the lowest risk; of equals, the lowest ids."""
    production = [row for row in CATALOGUE.values() if row.tier is Tier.PRODUCTION]
    ranked = sorted(production, key=lambda row: row.risk)
    return frozenset(row.name for row in ranked[:NUM_CONSERVATIVE])
