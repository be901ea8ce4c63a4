"""State spaces along a sequence, in parallel to the wrapped module: each token hears all before."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import TOKENS, Blueprint, Tier
from esper_lightning.karn.causal import MIN_TOKENS
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import (
    MIN_NORMED_VALUES,
    at_least_float32,
    conv_weights,
    kaiming,
    scaled,
    zeroed,
)
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape

SHORTEST_STEP, LONGEST_STEP = 0.001, 0.1
"""Between these lie the time steps at birth: memories of about 20 to 2000 tokens."""


class DiagonalSSM(CountableBranch):
    """LayerNorm, linear, a diagonal state space for each hidden feature, GELU, linear.

    Gu et al. 2022 (S4D, arXiv:2206.11893): ``s_t = exp(dt A) s_{t-1} + (exp(dt A) - 1) / A u_t``
    and ``y_t = 2 Re(c s_t) + d u_t``, with zero-order hold and S4D-Lin's ``A_n = -1/2 + i pi n``.
    The input matrix is 1: ``c`` holds its product with it. It runs as one convolution with the
    kernel that follows from ``A``, by FFT, which leaks float rounding, and nothing more, from
    tokens behind.

    Args:
        shape: of the slot, ``(T, D_in) -> (T, D_out)``.
        expansion: hidden features over ``D_out``.
        num_states: complex states of each hidden feature; their conjugates come for free.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape, *, expansion: float, num_states: int) -> None:
        super().__init__()
        d_in, d_out = shape.input.features, shape.output.features
        hidden = scaled(d_out, expansion)
        self.norm = nn.LayerNorm(d_in)
        # Nothing between this layer and the state space is curved.
        self.expand = kaiming(nn.Linear(d_in, hidden, bias=False), gain=1.0)
        low, high = math.log(SHORTEST_STEP), math.log(LONGEST_STEP)
        self.log_step = nn.Parameter(torch.empty(hidden, 1).uniform_(low, high))
        # What A has more than at birth: the logarithm of a factor, and an addend.
        self.log_decay = nn.Parameter(torch.zeros(hidden, num_states))
        self.frequency = nn.Parameter(torch.zeros(hidden, num_states))
        # The real and the imaginary part of c, of unit variance together.
        self.read = nn.Parameter(math.sqrt(0.5) * torch.randn(2, hidden, num_states))
        self.skip = nn.Parameter(torch.randn(hidden))
        self.project = zeroed(nn.Linear(hidden, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D_in)`` to ``(B, T, D_out)``."""
        u = self.expand(self.norm(x))
        tokens, signal = x.shape[1], at_least_float32(u)
        # Twice the length, so that the end does not come round to the beginning.
        spectrum = torch.fft.rfft(signal, 2 * tokens, dim=1)
        response = torch.fft.rfft(self._kernel(tokens), 2 * tokens, dim=1).transpose(0, 1)
        y = torch.fft.irfft(spectrum * response, 2 * tokens, dim=1)[:, :tokens]
        out: Tensor = self.project(F.gelu(y + signal * self.skip).to(u.dtype))
        return out

    def _kernel(self, tokens: int) -> Tensor:
        """``(D_hidden, T)``: what a token hears of itself and of those before, backwards."""
        log_step, log_decay, frequency, read = (
            at_least_float32(each)
            for each in (self.log_step, self.log_decay, self.frequency, self.read)
        )
        harmonics = torch.arange(frequency.shape[1], device=frequency.device)
        rate = torch.complex(-0.5 * log_decay.exp(), math.pi * harmonics + frequency)
        exponent = log_step.exp() * rate
        weight = torch.complex(read[0], read[1]) * (exponent.exp() - 1) / rate
        positions = torch.arange(tokens, device=log_step.device)
        states = (exponent[:, :, None] * positions).exp()
        return 2 * (weight[:, :, None] * states).sum(1).real

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """As many tokens out as in, from :data:`MIN_TOKENS`, and wide enough for the norm."""
        before = shape.input
        enough = before.num_positions >= MIN_TOKENS and before.features >= MIN_NORMED_VALUES
        return super().fits(shape) and enough

    @classmethod
    def cost(cls, shape: SlotShape, /, *, expansion: float, num_states: int) -> Cost:
        """Two linear layers, the last with its bias, the norm, and the state spaces.

        The kernel and the FFT count as nothing.
        """
        d_in, d_out = shape.input.features, shape.output.features
        hidden = scaled(d_out, expansion)
        weights = conv_weights(d_in + d_out, hidden)
        # Of each feature: decay, frequency and two parts of c for every state, step and skip.
        state_spaces = hidden * (4 * num_states + 2)
        return Cost(
            parameters=weights + state_spaces + 2 * d_in + d_out,
            flops=2 * weights * shape.output.num_positions,
        )


BLUEPRINTS = (
    Blueprint(
        id="BP036",
        name="diagonal_ssm",
        branch=DiagonalSSM,
        kinds=TOKENS,
        tier=Tier.EXPERIMENTAL,
        risk=0.35,
        curriculum_stage=3,
        parameters={"expansion": Range(0.25, 4.0, 1.0), "num_states": Range(2, 64, 16)},
        approval="2026-11 v1",
        citation="Gu et al. 2022, arXiv:2206.11893",
    ),
)
