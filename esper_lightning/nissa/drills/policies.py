"""Policies for drills."""

from esper_lightning.leyline import CommandKind, ParameterValue, SystemState
from esper_lightning.tamiyo import Choice, Policy
from esper_lightning.tamiyo.policy import wait

SLOT = "features.2"
"""Where drills plant: no normalisation hides from the head what a seed does there."""

PLANTED = 3
"""The epoch at whose end they do."""


class PlantsOnce(Policy):
    """Plants one seed, and waits.

    Args:
        blueprint: of the seed.
        parameters: of the blueprint.
        epoch: at whose end it is planted.
    """

    name = "drill"

    def __init__(
        self, blueprint: str, parameters: dict[str, ParameterValue], *, epoch: int = PLANTED
    ) -> None:
        self._choice = Choice(
            kind=CommandKind.GERMINATE,
            slot=SLOT,
            blueprint=blueprint,
            parameters=parameters,
            reason="it is what the drill needs",
        )
        self._epoch = epoch

    def decide(self, state: SystemState) -> list[Choice]:
        """Plant, or wait."""
        slot = state.slot(SLOT)
        is_due = state.epoch >= self._epoch and not slot.num_culls and not slot.fossils
        if is_due and CommandKind.GERMINATE in slot.legal:
            return [self._choice]
        return wait("there is nothing else to do in a drill")
