"""What a policy may plant in a slot."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from esper_lightning.karn import CATALOGUE, Blueprint, Tier
from esper_lightning.leyline import (
    CommandKind,
    InvalidArgument,
    ParameterValue,
    SeedState,
    SlotShape,
    SystemState,
    UnknownBlueprint,
)
from esper_lightning.leyline.arguments import check_flag, check_names
from esper_lightning.tamiyo.budget import BACKWARD_FACTOR, Price, Room
from esper_lightning.tamiyo.policy import Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A blueprint with all its parameters, and what it would add in one slot."""

    blueprint: Blueprint
    parameters: Mapping[str, ParameterValue]
    price: Price

    def germinate(self, slot: SeedState, reason: str) -> Choice:
        """The choice to plant it."""
        return Choice(
            kind=CommandKind.GERMINATE,
            slot=slot.slot,
            blueprint=self.blueprint.name,
            parameters=dict(self.parameters),
            reason=reason,
        )


def offer(
    blueprint: Blueprint, shape: SlotShape, parameters: Mapping[str, ParameterValue] | None = None
) -> Offer:
    """Price a blueprint for a slot; ``parameters`` that are not given take their defaults."""
    full = blueprint.resolve(parameters or {})
    cost = blueprint.cost(shape, full)
    return Offer(
        blueprint=blueprint,
        parameters=full,
        price=Price(parameters=cost.parameters, flops=float(BACKWARD_FACTOR * cost.flops)),
    )


class Shortlist:
    """The part of a catalogue that a policy may plant.

    Args:
        blueprints: names, the first ones preferred among equals, of any tier: who names one asks
            for it. None takes every blueprint of ``tiers``.
        tiers: how far what is not named must be trusted.
        require_zero_at_birth: leave out what would change the network's output when it is planted.
        catalogue: blueprints by name; the default is Karn's.

    Raises:
        UnknownBlueprint: a name that the catalogue does not have.
        InvalidArgument: ``blueprints`` is empty, names one twice, or names one that is not zero at
            birth where that is required.
    """

    def __init__(
        self,
        *,
        blueprints: Sequence[str] | None = None,
        tiers: Collection[Tier] = (Tier.PRODUCTION,),
        require_zero_at_birth: bool = True,
        catalogue: Mapping[str, Blueprint] = CATALOGUE,
    ) -> None:
        check_flag("require_zero_at_birth", require_zero_at_birth)
        if blueprints is None:
            allowed = {Tier(tier) for tier in tiers}
            self._blueprints = tuple(
                blueprint
                for blueprint in catalogue.values()
                if blueprint.tier in allowed
                and (blueprint.zero_at_birth or not require_zero_at_birth)
            )
            return
        check_names("blueprints", blueprints)
        if not blueprints or len(set(blueprints)) < len(blueprints):
            raise InvalidArgument(
                f"blueprints must be different names, at least one, got {list(blueprints)}; "
                "None allows every production blueprint"
            )
        for name in blueprints:
            if name not in catalogue:
                raise UnknownBlueprint(
                    f"no blueprint {name!r}; the catalogue has {', '.join(catalogue)}"
                )
            if require_zero_at_birth and not catalogue[name].zero_at_birth:
                raise InvalidArgument(
                    f"blueprint {name!r} is not zero at birth, so planting it would change the "
                    "network's output; incubate it and set require_zero_at_birth=False"
                )
        self._blueprints = tuple(catalogue[name] for name in blueprints)

    def of(self, slot: SeedState) -> list[Blueprint]:
        """What fits ``slot`` and is not in quarantine there; nothing while its shape is unknown."""
        if slot.shape is None:
            return []
        return [
            blueprint
            for blueprint in self._blueprints
            if blueprint.name not in slot.quarantined and blueprint.fits(slot.shape)
        ]

    def offers(self, slot: SeedState, room: Room) -> list[Offer]:
        """Those that fit in ``room`` with their default parameters."""
        if slot.shape is None:
            return []
        priced = [offer(blueprint, slot.shape) for blueprint in self.of(slot)]
        return [made for made in priced if room.admits(made.price)]

    def candidates(self, state: SystemState, room: Room) -> list[Choice]:
        """Every offer in every slot that is free."""
        return [
            made.germinate(slot, "may be planted next")
            for slot in state.slots
            if CommandKind.GERMINATE in slot.legal
            for made in self.offers(slot, room)
        ]
