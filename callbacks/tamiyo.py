"""Decides at epoch boundaries; what it decides mutates the network through Kasmina."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.state_version import STATE_VERSION, check_version
from esper_lightning.leyline import AdaptationCommand, Decision, SystemState
from esper_lightning.tamiyo import Heuristic, Policy


class Tamiyo(Callback):
    """Gives Kasmina a controller: a policy whose choices become commands.

    Args:
        policy: what decides; None is the heuristic.
    """

    def __init__(self, *, policy: Policy | None = None) -> None:
        super().__init__()
        self.policy = policy or Heuristic()
        self._stage = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with Kasmina, wherever it stands in the list of callbacks."""
        self._stage = stage
        if stage == "fit":
            find(trainer).controller = self.decide

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The policy lets go of what it holds."""
        self.policy.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The policy lets go of what it holds."""
        self.policy.close()

    def decide(self, state: SystemState) -> list[Decision]:
        """The policy's choices as decisions."""
        masks = {slot.slot: slot.legal for slot in state.slots}
        return [
            Decision(
                run_id=state.run_id,
                epoch=state.epoch,
                policy=self.policy.name,
                command=AdaptationCommand(
                    id=f"{state.run_id}/{state.epoch}/{number}",
                    run_id=state.run_id,
                    kind=choice.kind,
                    slot=choice.slot,
                    blueprint=choice.blueprint,
                    parameters=choice.parameters,
                    reason=choice.reason,
                ),
                mask=masks.get(choice.slot, ()),
                log_probability=choice.log_probability,
                refused=choice.refused,
            )
            for number, choice in enumerate(self.policy.decide(state))
        ]

    def state_dict(self) -> dict[str, Any]:
        """What the policy remembers."""
        return {
            "version": STATE_VERSION,
            "policy": self.policy.name,
            "state": self.policy.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with what the policy remembered, if it is the same policy.

        To evaluate a checkpoint makes it forget nothing.

        Raises:
            DecodeError: another release saved it.
        """
        if self._stage != "fit":
            return
        check_version(state_dict, of="Tamiyo")
        if state_dict["policy"] == self.policy.name:
            self.policy.load_state_dict(state_dict["state"])
