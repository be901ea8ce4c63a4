"""Decides at epoch boundaries; what it decides mutates the network through Kasmina."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from esper_lightning.callbacks.found import find
from esper_lightning.callbacks.state_version import STATE_VERSION, check_version
from esper_lightning.callbacks.telemetry import Telemetry
from esper_lightning.leyline import AdaptationCommand, Decision, Event, SystemState
from esper_lightning.tamiyo import Choice, FieldReports, Heuristic, Policy, RiskEngine, RiskRules
from esper_lightning.tamiyo.reload import Reloading

RISK = "risk"
"""Who decides what the risk engine does instead of what a policy chose."""


class Tamiyo(Callback):
    """Gives Kasmina a controller: a policy whose choices become commands.

    At each boundary it completes Kasmina's state by what the other parts report, asks the policy,
    lets the risk engine look at what it chose, and reports what earlier decisions led to.

    Args:
        policy: what decides; None is the heuristic.
        risk: what holds a policy back where a run stands badly; True takes the defaults and the
            policy's budget, False lets every choice pass.
        window: epochs for which an adaptation is observed before it is reported on.

    Raises:
        InvalidArgument: the window is not at least 1.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        risk: RiskEngine | bool = True,
        window: int = 3,
    ) -> None:
        super().__init__()
        self.policy = policy or Heuristic()
        if isinstance(risk, bool):
            rules = RiskRules(budget=self.policy.budget)
            # Where torch is deterministic the state holds nothing that a clock told.
            self.risk = RiskEngine(rules, deterministic=False) if risk else None
        else:
            self.risk = risk
        self._rules = Heuristic()
        self._reports = FieldReports(window=window)
        self._telemetry = Telemetry()
        self._next = (-1, 0)
        self._stage = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with Kasmina, wherever it stands in the list of callbacks."""
        self._stage = stage
        if stage == "fit":
            kasmina = find(trainer)
            self._telemetry.begin(trainer, kasmina)
            kasmina.controller, kasmina.witness = self.decide, self
            kasmina.subscribe(self._hear)

    def _hear(self, event: Event) -> None:
        self._telemetry.hear(event)
        self._reports.observe(event)

    # -- in the epoch -----------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The boundary is over."""
        self._telemetry.begin_epoch()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See how the host's layers are called, once."""
        self._telemetry.begin_step()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """They were seen."""
        self._telemetry.end_step()

    # -- asked by Kasmina at the boundary ---------------------------------------------------------

    def complete(self, state: SystemState) -> SystemState:
        """The state of the slots with what the other parts report."""
        return self._telemetry.complete(state)

    def decide(self, state: SystemState) -> list[Decision]:
        """The policy's choices, as far as the risk allows them, as decisions."""
        choices = self.policy.decide(state)
        own = {(choice.kind, choice.slot, choice.reason) for choice in choices}
        if self.risk is not None:
            choices = self._reviewed(self.risk, state, choices)
        masks = {slot.slot: slot.legal for slot in state.slots}
        # A run that ends early has a second boundary in its last epoch.
        first = self._next[1] if self._next[0] == state.epoch else 0
        self._next = state.epoch, first + len(choices)
        return [
            Decision(
                run_id=state.run_id,
                epoch=state.epoch,
                policy=self.policy.name
                if (choice.kind, choice.slot, choice.reason) in own
                else RISK,
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
                value=choice.value,
                policy_version=choice.policy_version,
                share=choice.share,
                risk=choice.risk,
            )
            for number, choice in enumerate(choices, start=first)
        ]

    def _reviewed(
        self, risk: RiskEngine, state: SystemState, choices: list[Choice]
    ) -> list[Choice]:
        why = self.policy.distrust()
        if why:
            risk.mode.enter(why)
        reviewed = risk.review(state, choices, fallback=self._rules.judge)
        if isinstance(self.policy, Reloading) and reviewed[0].risk is not None:
            self.policy.heed(reviewed[0].risk)
        return reviewed

    def due(self, *, ending: str = "") -> Sequence[Event]:
        """Reports of windows that are over, and changes of the policy."""
        changes = self.policy.changes() if isinstance(self.policy, Reloading) else []
        return [*changes, *self._reports.due(ending=ending)]

    # -- state ------------------------------------------------------------------------------------

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The policy lets go of what it holds."""
        self._telemetry.end_step()
        self.policy.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The policy lets go of what it holds."""
        self._telemetry.end_step()
        self.policy.close()

    def state_dict(self) -> dict[str, Any]:
        """What the policy remembers, what it is watched by, and windows that are open."""
        return {
            "version": STATE_VERSION,
            "policy": self.policy.name,
            "state": self.policy.state_dict(),
            "risk": self.risk.state_dict() if self.risk is not None else None,
            "rules": self._rules.state_dict(),
            "reports": self._reports.state_dict(),
            "telemetry": self._telemetry.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with what was remembered; of the policy, if it is the same policy.

        To evaluate a checkpoint makes it forget nothing.

        Raises:
            DecodeError: another release saved it.
        """
        if self._stage != "fit":
            return
        check_version(state_dict, of="Tamiyo")
        self._next = (-1, 0)
        if state_dict["policy"] == self.policy.name:
            self.policy.load_state_dict(state_dict["state"])
        if self.risk is not None and state_dict["risk"] is not None:
            self.risk.load_state_dict(state_dict["risk"])
        self._rules.load_state_dict(state_dict["rules"])
        self._reports.load_state_dict(state_dict["reports"])
        self._telemetry.load_state_dict(state_dict["telemetry"])
