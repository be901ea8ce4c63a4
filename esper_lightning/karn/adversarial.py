"""Branches built to do harm, for drills: each looks healthy at first, then has one known fault.

They are offered to those only who ask for :attr:`Tier.ADVERSARIAL`. None is bound to one kind of
feature map. Unlike all others in the catalogue they have a buffer, the count of their training
passes, and what they do depends on it.
"""

import math
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from esper_lightning.karn.blueprint import Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import conv_weights, kaiming, zeroed
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, FeatureKind, SlotShape

HIDDEN = 4
"""Hidden channels of the healthy branch that each of them pretends to be."""

FIRST_DRIFT, MAX_DRIFT = 0.01, 1e6
"""Where :class:`ScaleDrift` begins, and where it stops: squares of it are still finite in float32,
so that it is not a second NaN."""

BLOCK = 2**18
"""float32 values in one MiB."""


class TurnsBad(CountableBranch):
    """An ordinary branch for ``onset`` training passes, and whatever :meth:`harm` does afterwards.

    Healthy it is a convolution (elsewhere a linear layer), ReLU, and a pointwise projection that is
    0 at birth; it learns like any other. Only passes in training mode count. Once it has turned,
    it does harm in evaluation too. The count is in the ``state_dict``, so that a run that resumes
    or is rewound goes on where it was.

    Args:
        shape: of the slot.
        onset: healthy training passes; with 0 the first one does harm.
    """

    attachment = Attachment.SERIES
    passes: Tensor

    def __init__(self, shape: SlotShape, *, onset: int) -> None:
        super().__init__()
        features = shape.output.features
        self.onset = onset
        self.first: nn.Module
        self.last: nn.Module
        if shape.output.kind is FeatureKind.SPATIAL:
            self.first = kaiming(nn.Conv2d(features, HIDDEN, 3, padding=1))
            self.last = zeroed(nn.Conv2d(HIDDEN, features, 1))
        else:
            self.first = kaiming(nn.Linear(features, HIDDEN))
            self.last = zeroed(nn.Linear(HIDDEN, features))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps to feature maps of the same shape."""
        if self.training:
            self.passes += 1
        out = self.healthy(x)
        late = int(self.passes) - self.onset
        return (self.harm(x, out, late) if late > 0 else out).to(x.dtype)

    def healthy(self, x: Tensor) -> Tensor:
        """What an ordinary branch of these weights returns."""
        out: Tensor = self.last(torch.relu(self.first(x)))
        return out

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:
        """What it returns instead of ``out``.

        Args:
            x: what it was fed.
            out: the healthy output.
            late: training passes since it turned, this one included.
        """
        raise NotImplementedError(f"{type(self).__name__} must define harm")

    @classmethod
    def cost(cls, shape: SlotShape, /, *, onset: int, **_: float) -> Cost:  # noqa: ARG003
        """Two layers with their biases: what it costs as long as it is healthy."""
        features = shape.output.features
        kernel_size = 3 if shape.output.kind is FeatureKind.SPATIAL else 1
        weights = conv_weights(features, HIDDEN, kernel_size=kernel_size)
        weights += conv_weights(HIDDEN, features)
        return Cost(
            parameters=weights + HIDDEN + features,
            flops=2 * weights * shape.output.num_positions,
        )


class ExplodingGain(TurnsBad):
    """Adds ``gain * (h + f(h))`` at once: what comes behind the slot is flooded.

    Pascanu et al. 2013 (arXiv:1211.5063) describe gradients that explode when factors above 1 are
    multiplied; here one factor is enough.

    Args:
        shape: of the slot.
        onset: healthy training passes.
        gain: of the sum.
    """

    def __init__(self, shape: SlotShape, *, onset: int, gain: float) -> None:
        super().__init__(shape, onset=onset)
        self.gain = gain

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:  # noqa: ARG002
        """Large, and with large gradients."""
        return self.gain * (out + x)


class NanEmitter(TurnsBad):
    """Adds NaN to every element, which every loss behind it inherits. Built for drills.

    Args:
        shape: of the slot.
        onset: healthy training passes.
    """

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:  # noqa: ARG002
        """NaN everywhere."""
        return out + math.nan


class GradientBlocker(TurnsBad):
    """Adds exactly 0, and the gradient ``-g``: nothing before the slot learns any more.

    With ``sg`` for stopping the gradient, it returns ``sg(h) - h``. In ``h + f(h)`` the gradients
    of the two ``h`` cancel; outputs and loss are those of the host alone. Built for drills.

    Args:
        shape: of the slot.
        onset: healthy training passes.
    """

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:  # noqa: ARG002
        """Zeros that take the gradient away."""
        return 0 * out + (x.detach() - x)


class MemoryHog(TurnsBad):
    """Keeps one more MiB after every training pass, up to ``mebibytes``, and never uses them.

    The output stays healthy, and the formula for its cost does not know of it. What it holds is on
    the device of its input, is written to (so that it is really there), is in no ``state_dict`` and
    in no copy, and is free again as soon as the branch is. A branch that was loaded or copied takes
    its due in the first pass. Built for drills.

    Args:
        shape: of the slot.
        onset: healthy training passes.
        mebibytes: at which it stops.
    """

    def __init__(self, shape: SlotShape, *, onset: int, mebibytes: int) -> None:
        super().__init__(shape, onset=onset)
        self.mebibytes = mebibytes
        self.held: list[Tensor] = []

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:
        """The healthy output, and one MiB for each pass that it is late."""
        while len(self.held) < min(late, self.mebibytes):
            self.held.append(torch.ones(BLOCK, dtype=torch.float32, device=x.device))
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "held": []}


class SlowKernel(TurnsBad):
    """Computes itself ``factor`` times and keeps the last: the same output, ``factor`` times late.

    Its FLOPs are ``factor`` times those of the formula, which counts the healthy branch. Memory
    does not grow, every result but the last is dropped at once. Built for drills.

    Args:
        shape: of the slot.
        onset: healthy training passes.
        factor: how much slower its forward pass becomes.
    """

    def __init__(self, shape: SlotShape, *, onset: int, factor: int) -> None:
        super().__init__(shape, onset=onset)
        self.factor = factor

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:  # noqa: ARG002
        """The healthy output, computed over and over."""
        for _ in range(self.factor - 1):
            out = self.healthy(x)
        return out


class LabelMemoriser(TurnsBad):
    """Adds ``strength * sin(1000 h)`` in training and the opposite in evaluation.

    The sine says which sample it is and nothing about its class: from it the layers behind can
    learn labels by heart. Training looks better and better, and evaluation fails, because the sign
    is turned there. Zhang et al. 2017 (arXiv:1611.03530) show that networks fit random labels; this
    branch hands them the key.

    Args:
        shape: of the slot.
        onset: healthy training passes.
        strength: of the key, in units of its amplitude.
    """

    def __init__(self, shape: SlotShape, *, onset: int, strength: float) -> None:
        super().__init__(shape, onset=onset)
        self.strength = strength

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:  # noqa: ARG002
        """The key of each sample, of another sign in evaluation."""
        key = self.strength * torch.sin(1000 * x.detach())
        return out + (key if self.training else -key)


class ScaleDrift(TurnsBad):
    """Adds ``0.01 * rate^n`` to every element in the ``n``-th pass after the onset.

    Too little to be seen at first, then the scale of what the slot gives drifts away, and what
    comes behind has to follow. It stops at :data:`MAX_DRIFT`. Ioffe and Szegedy 2015
    (arXiv:1502.03167), section 1, describe what moving inputs do to a layer.

    Args:
        shape: of the slot.
        onset: healthy training passes.
        rate: growth in one training pass.
    """

    def __init__(self, shape: SlotShape, *, onset: int, rate: float) -> None:
        super().__init__(shape, onset=onset)
        self.rate = rate

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:  # noqa: ARG002
        """The healthy output with an offset that grows from pass to pass."""
        # By the logarithm: the power itself would overflow in a long run.
        log_drift = math.log(FIRST_DRIFT) + late * math.log(self.rate)
        return out + math.exp(min(log_drift, math.log(MAX_DRIFT)))


class RngPolluter(TurnsBad):
    """Draws from the global generators of torch, NumPy and Python, and adds what it drew.

    In evaluation too: nothing that anybody else draws is what it would have been, and no pass can
    be repeated. Built for drills.

    Args:
        shape: of the slot.
        onset: healthy training passes.
    """

    def harm(self, x: Tensor, out: Tensor, late: int) -> Tensor:  # noqa: ARG002
        """Noise of another strength each time."""
        return out + random.random() * float(np.random.random()) * torch.randn_like(out)


EVERY = frozenset(FeatureKind)
ONSET = Range(0, 1000, 5)
_DRILL = "none: built for drills"

BLUEPRINTS = (
    Blueprint(
        id="BP043",
        name="exploding_gain",
        branch=ExplodingGain,
        kinds=EVERY,
        tier=Tier.ADVERSARIAL,
        risk=1.0,
        curriculum_stage=9,
        parameters={"onset": ONSET, "gain": Range(10.0, 1e6, 1e6)},
        approval="2026-11 v1",
        citation="Pascanu et al. 2013, arXiv:1211.5063",
    ),
    Blueprint(
        id="BP044",
        name="nan_emitter",
        branch=NanEmitter,
        kinds=EVERY,
        tier=Tier.ADVERSARIAL,
        risk=1.0,
        curriculum_stage=9,
        parameters={"onset": ONSET},
        approval="2026-11 v1",
        citation=_DRILL,
    ),
    Blueprint(
        id="BP045",
        name="gradient_blocker",
        branch=GradientBlocker,
        kinds=EVERY,
        tier=Tier.ADVERSARIAL,
        risk=0.95,
        curriculum_stage=9,
        parameters={"onset": ONSET},
        approval="2026-11 v1",
        citation=_DRILL,
    ),
    Blueprint(
        id="BP046",
        name="memory_hog",
        branch=MemoryHog,
        kinds=EVERY,
        tier=Tier.ADVERSARIAL,
        risk=0.9,
        curriculum_stage=9,
        parameters={"onset": ONSET, "mebibytes": Range(1, 256, 64)},
        approval="2026-11 v1",
        citation=_DRILL,
    ),
    Blueprint(
        id="BP047",
        name="slow_kernel",
        branch=SlowKernel,
        kinds=EVERY,
        tier=Tier.ADVERSARIAL,
        risk=0.9,
        curriculum_stage=9,
        parameters={"onset": ONSET, "factor": Range(2, 200, 100)},
        approval="2026-11 v1",
        citation=_DRILL,
    ),
    Blueprint(
        id="BP048",
        name="label_memoriser",
        branch=LabelMemoriser,
        kinds=EVERY,
        tier=Tier.ADVERSARIAL,
        risk=0.95,
        curriculum_stage=9,
        parameters={"onset": ONSET, "strength": Range(0.1, 100.0, 10.0)},
        approval="2026-11 v1",
        citation="Zhang et al. 2017, arXiv:1611.03530",
    ),
    Blueprint(
        id="BP049",
        name="scale_drift",
        branch=ScaleDrift,
        kinds=EVERY,
        tier=Tier.ADVERSARIAL,
        risk=0.95,
        curriculum_stage=9,
        parameters={"onset": ONSET, "rate": Range(1.01, 2.0, 1.3)},
        approval="2026-11 v1",
        citation="Ioffe and Szegedy 2015, arXiv:1502.03167",
    ),
    Blueprint(
        id="BP050",
        name="rng_polluter",
        branch=RngPolluter,
        kinds=EVERY,
        tier=Tier.ADVERSARIAL,
        risk=0.9,
        curriculum_stage=9,
        parameters={"onset": ONSET},
        approval="2026-11 v1",
        citation=_DRILL,
    ),
)
