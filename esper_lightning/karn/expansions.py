"""Layers without hidden units: curves of single features, and products of pairs of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esper_lightning.karn.blueprint import FEATURES, Blueprint, Tier
from esper_lightning.karn.countable import Cost, CountableBranch
from esper_lightning.karn.layers import MIN_NORMED_VALUES, conv_weights, kaiming, scaled, zeroed
from esper_lightning.karn.parameter_space import Range
from esper_lightning.leyline import Attachment, SlotShape

GRID_END = 2.0
"""A grid of basis functions runs from minus this to this, in standard deviations."""


class KanLayer(CountableBranch):
    """LayerNorm, then ``y_j = sum_i phi_ji(x_i)``: a learned curve on every edge.

    Liu et al. 2024 (KAN, arXiv:2404.19756), section 2.2, one layer of it. A curve is
    a sum of Gaussian bumps on a fixed grid, as in Li 2024 (FastKAN, arXiv:2405.06721), in place of
    B-splines, and of a SiLU that goes on where the grid ends. All coefficients are 0 at birth.

    Args:
        shape: of the slot, ``(D_in,) -> (D_out,)`` or ``(T, D_in) -> (T, D_out)``.
        grid_size: Gaussian bumps of each curve, from -2 to 2 standard deviations.
    """

    attachment = Attachment.PARALLEL

    def __init__(self, shape: SlotShape, *, grid_size: int) -> None:
        super().__init__()
        d_in, d_out = shape.input.features, shape.output.features
        self.grid_size = grid_size
        self.norm = nn.LayerNorm(d_in)
        self.edges = zeroed(nn.Linear(d_in * (grid_size + 1), d_out, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D_in)`` to ``(..., D_out)``."""
        normed = self.norm(x)
        centres = torch.linspace(
            -GRID_END, GRID_END, self.grid_size, dtype=normed.dtype, device=normed.device
        )
        # One bump is as wide as the grid's step.
        distances = (normed[..., None] - centres) * ((self.grid_size - 1) / (2 * GRID_END))
        bumps = (-distances.square()).exp()
        basis = torch.cat((bumps, F.silu(normed)[..., None]), dim=-1)
        out: Tensor = self.edges(basis.flatten(-2))
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where the norm has enough features."""
        return super().fits(shape) and shape.input.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, grid_size: int) -> Cost:
        """The coefficients of every edge, and the norm; basis functions are free."""
        d_in, d_out = shape.input.features, shape.output.features
        weights = conv_weights(d_in * (grid_size + 1), d_out)
        return Cost(parameters=weights + 2 * d_in, flops=2 * weights * shape.output.num_positions)


class QuadraticFeatures(CountableBranch):
    """LayerNorm, then ``W ((U_2 x) * (U_1 x) + U_1 x)``: a polynomial of second degree.

    Chrysos et al. 2020 (Pi-nets, arXiv:2003.03828), their model CCP with ``N = 2``: the
    coefficients of all products of two features, as a sum of ``rank`` terms of rank one. The norm
    in front keeps products from growing with the square of the slot's scale.

    Args:
        shape: of the slot, ``(D,)`` or ``(T, D)``.
        rank: terms over ``D``.
    """

    attachment = Attachment.SERIES

    def __init__(self, shape: SlotShape, *, rank: float) -> None:
        super().__init__()
        width = shape.output.features
        terms = scaled(width, rank)
        self.norm = nn.LayerNorm(width)
        self.first = kaiming(nn.Linear(width, terms, bias=False), gain=1.0)
        self.second = kaiming(nn.Linear(width, terms, bias=False), gain=1.0)
        self.project = zeroed(nn.Linear(terms, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same."""
        normed = self.norm(x)
        first = self.first(normed)
        out: Tensor = self.project(self.second(normed) * first + first)
        return out

    @classmethod
    def fits(cls, shape: SlotShape) -> bool:
        """Where the norm has enough features."""
        return shape.output.features >= MIN_NORMED_VALUES

    @classmethod
    def cost(cls, shape: SlotShape, /, *, rank: float) -> Cost:
        """Three linear layers, the last with its bias, and the norm."""
        width = shape.output.features
        weights = 3 * conv_weights(width, scaled(width, rank))
        return Cost(parameters=weights + 3 * width, flops=2 * weights * shape.output.num_positions)


BLUEPRINTS = (
    Blueprint(
        id="BP039",
        name="kan_layer",
        branch=KanLayer,
        kinds=FEATURES,
        tier=Tier.EXPERIMENTAL,
        risk=0.35,
        curriculum_stage=3,
        parameters={"grid_size": Range(4, 16, 8)},
        approval="2026-11 v1",
        citation="Liu et al. 2024, arXiv:2404.19756",
    ),
    Blueprint(
        id="BP040",
        name="quadratic_features",
        branch=QuadraticFeatures,
        kinds=FEATURES,
        tier=Tier.EXPERIMENTAL,
        risk=0.4,
        curriculum_stage=3,
        parameters={"rank": Range(0.25, 4.0, 1.0)},
        approval="2026-11 v1",
        citation="Chrysos et al. 2020, arXiv:2003.03828",
    ),
)
