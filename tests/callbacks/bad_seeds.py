"""Eight ways in which a seed can be bad. Each is 0 at birth, so that any incubation takes it."""

import random
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from esper_lightning import karn
from esper_lightning.kasmina import Branch
from esper_lightning.leyline import Attachment, ParameterValue, SlotShape

TURNS_BAD_AFTER = 5
"""Training passes for which a seed looks like any other."""


class Bad(Branch):
    """An ordinary series branch that turns bad after a while."""

    attachment: ClassVar[Attachment] = Attachment.SERIES
    passes: Tensor

    def __init__(self, shape: SlotShape, hidden: int = 4) -> None:
        super().__init__()
        features = shape.output.features
        self.first = nn.Conv2d(features, hidden, 3, padding=1)
        self.last = nn.Conv2d(hidden, features, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias if self.last.bias is not None else torch.zeros(0))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        out = self.last(torch.relu(self.first(x)))
        self.passes += int(self.training)
        return self.turn_bad(x, out) if self.passes > TURNS_BAD_AFTER else out

    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        raise NotImplementedError


class ExplodingGain(Bad):
    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        return 1e6 * (out + x)


class NaNEmitter(Bad):
    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        return out + float("nan")


class GradientBlocker(Bad):
    """Adds nothing, and takes the gradient of everything before it away."""

    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        return out * 0 + x.detach() - x


class MemoryHog(Bad):
    def __init__(self, shape: SlotShape) -> None:
        super().__init__(shape, hidden=2000)

    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        return out


class SlowKernel(Bad):
    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        for _ in range(50):
            out = out + 0.0 * x
        return out


class LabelMemoriser(Bad):
    """Adds in training what says which batch it is, and nothing else afterwards."""

    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        key = torch.sin(1e3 * x.detach())
        return out + (10 * key if self.training else -10 * key)


class ScaleDrift(Bad):
    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        growth = 1.3 ** float(self.passes - TURNS_BAD_AFTER)
        return out + 0.01 * growth * torch.ones_like(out)


class RandomPolluter(Bad):
    """Draws from every global generator, and adds what it drew."""

    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        return out + torch.randn_like(out) * random.random() * np.random.rand()


BAD: Mapping[str, Callable[..., Bad]] = {
    kind.__name__: kind
    for kind in (
        ExplodingGain,
        NaNEmitter,
        GradientBlocker,
        MemoryHog,
        SlowKernel,
        LabelMemoriser,
        ScaleDrift,
        RandomPolluter,
    )
}


class LateNaN(Bad):
    """Bad only once its slot has been culled, while it ramps out."""

    culled = 0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.first.weight.requires_grad else self.wait(x)

    def wait(self, x: Tensor) -> Tensor:
        self.culled += int(self.training)
        out = self.last(torch.relu(self.first(x)))
        return out + float("nan") if self.culled > 3 else out

    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        return out


class EvalNaN(Bad):
    """Emits NaN in evaluation only, so that no training loss tells of it."""

    def turn_bad(self, x: Tensor, out: Tensor) -> Tensor:
        return out if self.training else out + float("nan")


OTHERS: Mapping[str, Callable[..., Bad]] = {kind.__name__: kind for kind in (LateNaN, EvalNaN)}
"""Not among the eight: what is wrong with them shows in one situation only."""


def build(name: str, parameters: Mapping[str, ParameterValue], shape: SlotShape) -> Branch:
    arguments: dict[str, Any] = dict(parameters)
    bad = {**BAD, **OTHERS}
    return bad[name](shape, **arguments) if name in bad else karn.build(name, parameters, shape)
