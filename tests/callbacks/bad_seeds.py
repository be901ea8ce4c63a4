"""Seeds that turn bad: the blueprints for drills, and two that do harm in one situation only."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from esper_lightning import karn
from esper_lightning.karn.adversarial import TurnsBad
from esper_lightning.kasmina import Branch
from esper_lightning.leyline import ParameterValue, SlotShape

TURNS_BAD_AFTER = 5
"""Training passes for which a seed looks like any other."""

BAD = [row.name for row in karn.CATALOGUE.values() if row.tier is karn.Tier.ADVERSARIAL]


class LateNaN(TurnsBad):
    """Bad only once its slot has been culled, while it ramps out."""

    culled = 0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.first.weight.requires_grad else self.wait(x)

    def wait(self, x: Tensor) -> Tensor:
        self.culled += int(self.training)
        out = self.healthy(x)
        return out + float("nan") if self.culled > 3 else out

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:
        return out


class EvalNaN(TurnsBad):
    """Emits NaN in evaluation only, so that no training loss tells of it."""

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:
        return out if self.training else out + float("nan")


OTHERS: Mapping[str, Callable[..., TurnsBad]] = {kind.__name__: kind for kind in (LateNaN, EvalNaN)}
"""In no catalogue."""


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    if name in OTHERS:
        arguments: dict[str, Any] = {"onset": TURNS_BAD_AFTER, **parameters}
        return OTHERS[name](shape, **arguments)
    return karn.build(name, parameters, shape)
