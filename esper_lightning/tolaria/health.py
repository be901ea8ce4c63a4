"""Whether an epoch went well: what is measured, compared with how the run went so far."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec

from esper_lightning.leyline import AlarmLevel, InvalidArgument
from esper_lightning.leyline.arguments import check_whole, is_number

_CLEARLY = 3.0
"""Times the usual size of a curve's changes by chance that one must be larger than."""

_SWING = 5.0
"""Times as far an objective may drop in an epoch in which the training loss fell. Of 35 healthy
runs two dropped by 2.3 and 3.6 times what they had gained, and came back; seeds that do harm in
evaluation only made it 9 to 15 times."""


class HealthRules(msgspec.Struct, frozen=True, kw_only=True):
    """When an epoch is not to be kept. All thresholds are relative to the run itself.

    Attributes:
        loss_factor: times its running mean that the training loss may reach; a loss below that of
            the first epoch never is an explosion. A loss need not be positive: it may lie above its
            mean by ``loss_factor - 1`` times the usual size, which is how far from 0 it was, or how
            far its steps were apart where that is more.
        gradient_factor: times its running mean that the host's gradient norm may reach.
        max_drop: share of what the objective has gained since the first epoch that may be lost from
            one epoch to the next when something grew not long ago. Where little has been gained,
            that says nothing: a drop must be ``min_drop`` too, and clearly larger than those from
            which the objective came back by itself. Where the training loss fell in that epoch,
            only the evaluation swings, and five times as much is borne.
        min_drop: share of the objective's own size that a drop must reach.
        window: epochs of the running means.
        max_rollbacks: within ``period`` epochs; one more stops the run.
        period: epochs, for which also a fossil is under suspicion.
    """

    loss_factor: float = 15.0
    gradient_factor: float = 5.0
    max_drop: float = 1.0
    min_drop: float = 0.25
    window: int = 5
    max_rollbacks: int = 3
    period: int = 10

    def __post_init__(self) -> None:
        for name, least in (("loss_factor", 1.0), ("gradient_factor", 1.0), ("max_drop", 0.0)):
            value = getattr(self, name)
            if not is_number(value) or not value > least:
                raise InvalidArgument(f"{name} must be above {least:g}, got {value!r}")
        if not is_number(self.min_drop) or not self.min_drop >= 0:
            raise InvalidArgument(f"min_drop must be 0 or above, got {self.min_drop!r}")
        for name in ("window", "max_rollbacks", "period"):
            check_whole(name, getattr(self, name), least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What an epoch is judged by.

    Attributes:
        loss: mean training loss; None where it is not known.
        loss_deviation: standard deviation of the loss over the epoch's steps.
        gradient_norm: mean L2 norm of the host's gradient; None where it was not measured.
        objective: the monitored validation metric; None where it is missing. May be NaN.
        mode: ``min`` or ``max``.
        finite: every weight and buffer is.
        blocked: how many of the host's tensors always had a gradient, and have none any more.
        grown: something that grew not long ago acts on the network's output.
    """

    loss: float | None
    loss_deviation: float | None
    gradient_norm: float | None
    objective: float | None
    mode: str
    finite: bool
    blocked: int
    grown: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """What is wrong with an epoch.

    Attributes:
        level: ``MINOR`` where the network can be kept, ``SEVERE`` where it cannot.
        what: in words, with the figures.
    """

    level: AlarmLevel
    what: str


class Health:
    """Judges epochs by those before them.

    Args:
        rules: when an epoch is not to be kept.
    """

    def __init__(self, rules: HealthRules) -> None:
        self.rules = rules
        self._losses: deque[float] = deque(maxlen=rules.window)
        self._sizes: deque[float] = deque(maxlen=rules.window)
        self._norms: deque[float] = deque(maxlen=rules.window)
        self._first_loss: float | None = None
        self._first_objective: float | None = None
        self._objectives: deque[float] = deque(maxlen=rules.window + 1)

    def judge(self, reading: Reading) -> Alarm | None:
        """The worst that is wrong, None for an epoch that may be kept."""
        for level, what in (
            (AlarmLevel.SEVERE, self._not_finite(reading)),
            (AlarmLevel.SEVERE, self._loss_explosion(reading.loss)),
            (AlarmLevel.SEVERE, self._drop(reading)),
            (AlarmLevel.SEVERE, self._blocked(reading)),
            (AlarmLevel.MINOR, self._gradient_explosion(reading.gradient_norm)),
        ):
            if what:
                return Alarm(level=level, what=what)
        return None

    def accept(self, reading: Reading) -> None:
        """Let an epoch that was kept be one of those that later ones are judged by."""
        if reading.loss is not None:
            self._losses.append(reading.loss)
            self._sizes.append(max(abs(reading.loss), reading.loss_deviation or 0.0))
            self._first_loss = reading.loss if self._first_loss is None else self._first_loss
        if reading.gradient_norm is not None and math.isfinite(reading.gradient_norm):
            self._norms.append(reading.gradient_norm)
        if reading.objective is not None and math.isfinite(reading.objective):
            if self._first_objective is None:
                self._first_objective = reading.objective
            self._objectives.append(reading.objective)

    def state_dict(self) -> dict[str, Any]:
        """The epochs that were kept."""
        return {
            "losses": list(self._losses),
            "sizes": list(self._sizes),
            "norms": list(self._norms),
            "first_loss": self._first_loss,
            "first_objective": self._first_objective,
            "objectives": list(self._objectives),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self._losses = deque(state["losses"], maxlen=self.rules.window)
        self._sizes = deque(state["sizes"], maxlen=self.rules.window)
        self._norms = deque(state["norms"], maxlen=self.rules.window)
        self._first_loss = state["first_loss"]
        self._first_objective = state["first_objective"]
        self._objectives = deque(state["objectives"], maxlen=self.rules.window + 1)

    def _not_finite(self, reading: Reading) -> str:
        if reading.loss is not None and not math.isfinite(reading.loss):
            return f"the training loss is {reading.loss}"
        if not reading.finite:
            return "weights or buffers are not finite"
        if reading.objective is not None and not math.isfinite(reading.objective) and reading.grown:
            return f"the objective is {reading.objective}"
        return ""

    def _loss_explosion(self, loss: float | None) -> str:
        if loss is None or not self._losses or self._first_loss is None:
            return ""
        usual = sum(self._losses) / len(self._losses)
        size = sum(self._sizes) / len(self._sizes)
        times = self.rules.loss_factor - 1
        if loss - usual <= times * size or loss <= self._first_loss:
            return ""
        return (
            f"the training loss {loss:.4g} is above its mean {usual:.4g} by more than {times:g} "
            f"times its usual size {size:.4g}, and above that of the first epoch, "
            f"{self._first_loss:.4g}"
        )

    def _gradient_explosion(self, norm: float | None) -> str:
        if norm is None or not self._norms:
            return ""
        usual = sum(self._norms) / len(self._norms)
        # NaN is no explosion of the host's gradient alone: the loss or the weights will tell.
        if not norm > self.rules.gradient_factor * usual:
            return ""
        return (
            f"the host's gradient norm {norm:.4g} is more than {self.rules.gradient_factor:g} "
            f"times its mean {usual:.4g}"
        )

    def _drop(self, reading: Reading) -> str:
        now, first = reading.objective, self._first_objective
        if now is None or not math.isfinite(now) or first is None or not reading.grown:
            return ""
        before = self._objectives[-1]
        sign = 1.0 if reading.mode == "max" else -1.0
        gained, lost = sign * (before - first), sign * (before - now)
        usual = max(_CLEARLY * _noise(self._objectives, sign), self.rules.min_drop * abs(before))
        # Evaluation alone swings where training went on as before, as it does with BatchNorm.
        swings = reading.loss is not None and self._losses and reading.loss < self._losses[-1]
        most = self.rules.max_drop * (_SWING if swings else 1.0)
        if gained <= 0 or lost <= most * gained or lost <= usual:
            return ""
        return (
            f"the objective went from {before:.4g} to {now:.4g}, which is {lost / gained:.0%} of "
            f"what it had gained since {first:.4g}"
        )

    def _blocked(self, reading: Reading) -> str:
        if not reading.blocked or not reading.grown:
            return ""
        return f"{reading.blocked} of the host's tensors get no gradient any more"


def _noise(curve: Iterable[float], sign: float) -> float:
    """By how much a curve changes from epoch to epoch by chance, as a root mean square.

    Learning makes a curve better, at first faster than later. What goes against that is noise: that
    it gets worse, or that it bends the other way. Noise of one size in every epoch makes second
    differences larger than first ones by the root of 3.
    """
    changes = [sign * (after - before) for before, after in pairwise(curve)]
    bends = [after - before for before, after in pairwise(changes)]
    worse = _root_mean_square([-change for change in changes if change < 0])
    against = _root_mean_square([bend for bend in bends if bend > 0])
    return max(worse, against / math.sqrt(3))


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / max(len(values), 1))
