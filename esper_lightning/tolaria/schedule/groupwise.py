"""The scheduler that owns every learning rate of a growing network."""

import logging
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from esper_lightning.kasmina import PLANTED_AT
from esper_lightning.leyline import InvalidArgument
from esper_lightning.tolaria.schedule.policies import HostPolicy, Newcomer, WarmupStableDecay

log = logging.getLogger(__name__)

_HOST = WarmupStableDecay()
_NEWCOMER = Newcomer()


class GroupwiseLR(LRScheduler):
    """Sets the rate of every parameter group at every optimiser step.

    A rate is ``initial_lr`` of its group times a factor that is a pure function of the step and of
    the group's name and ``planted_at``; nothing accumulates, so a resumed run has the same rates.

    ============  ==================================================================================
    group         factor
    ============  ==================================================================================
    ``seed:*``    the newcomer policy, counted from ``planted_at``. An empty group shows the rate
                  with which a seed planted now would begin, so that planting between two steps
                  needs no call here
    ``fossil:*``  the newcomer's multiplier times the host's factor: with a finished warm-up and
                  the host's horizon nothing changes at fossilisation; with ``own_horizon`` the
                  rate comes back to the host's curve then
    any other     the host policy
    ============  ==================================================================================

    Groups may be empty, fill and empty at any time. One that is added later is adopted with the
    rate it came with. Where another hand has changed a rate, a warning says so once per group, and
    the next step sets the scheduled rate again.

    In Lightning it goes with ``{"interval": "step"}``.

    Args:
        optimizer: whose groups' present rates are the initial ones.
        total_steps: optimiser steps of the run.
        host: policy of the host.
        newcomer: policy of seeds.

    Raises:
        InvalidArgument: ``total_steps`` is not a positive integer, or a rate is a tensor; when
            stepped: a seed's group that holds parameters has no ``planted_at``, or one that lies
            ahead.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int,
        host: HostPolicy = _HOST,
        newcomer: Newcomer = _NEWCOMER,
    ) -> None:
        if not isinstance(total_steps, int) or total_steps < 1:
            raise InvalidArgument(
                f"total_steps must be a positive integer, got {total_steps}; "
                "limit the run by max_epochs or max_steps"
            )
        _check_rates(optimizer.param_groups)
        self.total_steps = total_steps
        self.host = host
        self.newcomer = newcomer
        self._last_lr: list[float | Tensor] = []
        self._warned: set[str] = set()
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of every group at the present step, in the order of the groups."""
        return [
            group["initial_lr"] * self._factor(_label(index, group), group)
            for index, group in enumerate(self.optimizer.param_groups)
        ]

    def step(self, epoch: int | None = None) -> None:
        """Advance by one optimiser step and set every rate."""
        self._compare()
        self._adopt()
        super().step(epoch)
        if self.last_epoch == self.total_steps + 1:
            log.warning(
                "training goes on after the %d steps that learning rates were planned for; "
                "the host's factor stays at %g",
                self.total_steps,
                self.host(self.last_epoch, self.total_steps),
            )

    def refresh(self) -> None:
        """Set every rate for the present step again, without comparing.

        To be called when the optimiser's state was put back to an earlier one, as by a rollback:
        rates are not rewound.
        """
        self._adopt()
        rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = rates

    def state_dict(self) -> dict[str, Any]:
        """The step and the rates set for it, as plain numbers; policies are configuration."""
        return {
            "last_epoch": self.last_epoch,
            "total_steps": self.total_steps,
            "last_lr": list(self._last_lr),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved step.

        The number of steps that is planned now holds, so that a run can be prolonged.

        Raises:
            InvalidArgument: the state has rates for another number of groups.
        """
        rates = state_dict["last_lr"]
        if len(rates) != len(self.optimizer.param_groups):
            raise InvalidArgument(
                f"the saved schedule has {len(rates)} parameter groups, the optimiser has "
                f"{len(self.optimizer.param_groups)}; resume with the slots of the saved run"
            )
        if state_dict["total_steps"] != self.total_steps:
            log.warning(
                "the saved run was planned for %d steps, this one is for %d: learning rates follow "
                "the new plan from here",
                state_dict["total_steps"],
                self.total_steps,
            )
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = self.last_epoch + 1
        self._last_lr = list(rates)

    def _factor(self, label: str, group: dict[str, Any]) -> float:
        step = self.last_epoch
        if label.startswith("fossil:"):
            return self.newcomer.multiplier * self.host(step, self.total_steps)
        if not label.startswith("seed:"):
            return self.host(step, self.total_steps)
        planted_at: int | None = group.get(PLANTED_AT) if group["params"] else step
        if planted_at is None or planted_at > step:
            raise InvalidArgument(
                f"parameter group {label!r} holds a seed planted at step {planted_at}, but the "
                f"scheduler is at step {step}; set {PLANTED_AT!r} to the number of optimiser "
                "steps at planting, and step the scheduler once after each optimiser step"
            )
        return self.newcomer(
            self.host, step=step, planted_at=planted_at, total_steps=self.total_steps
        )

    def _adopt(self) -> None:
        """Take the present rate of a group that was added later as its initial one."""
        groups = self.optimizer.param_groups
        _check_rates(groups)
        for group in groups:
            group.setdefault("initial_lr", group["lr"])

    def _compare(self) -> None:
        """Warn, once per group, about a rate that is not the one set last."""
        groups = self.optimizer.param_groups
        for index, (group, ours) in enumerate(zip(groups, self._last_lr, strict=False)):
            label = _label(index, group)
            if group["lr"] != ours and label not in self._warned:
                self._warned.add(label)
                log.warning(
                    "the learning rate of parameter group %r was set to %r by another hand, the "
                    "schedule had set %r and sets it again at each step",
                    label,
                    group["lr"],
                    ours,
                )


def _label(index: int, group: dict[str, Any]) -> str:
    return str(group.get("name") or f"group {index}")


def _check_rates(groups: list[dict[str, Any]]) -> None:
    for index, group in enumerate(groups):
        if isinstance(group["lr"], Tensor):
            raise InvalidArgument(
                f"the rate of parameter group {_label(index, group)!r} is a tensor; "
                "give the optimiser a float"
            )
