"""What growing can save where losses follow a power law, against sums that are done in full."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from esper_lightning.evidence.scaling_law import growing_share, wrong_size_share
from esper_lightning.leyline import InvalidArgument

EXTREME = [(0.02, 0.02), (0.02, 0.1), (0.077, 0.76), (5.0, 0.02), (0.02, 5.0), (5.0, 5.0)]
EXPONENTS = [(0.34, 0.28), (0.5, 0.67), (1.0, 0.6), (0.3, 1.2)]


def samples_to(loss: float, size: float, alpha: float, beta: float) -> float:
    """Until a loss above the floor, where capacity and data are 1."""
    left = loss - size**-alpha
    return left ** (-1 / beta) if left > 0 else float("inf")


def static_flops(loss: float, alpha: float, beta: float) -> float:
    """With the size that is best for it."""
    found = minimize_scalar(
        lambda log_size: np.log(np.exp(log_size) * samples_to(loss, np.exp(log_size), alpha, beta)),
        bounds=(np.log(loss ** (-1 / alpha)) + 1e-9, np.log(loss ** (-1 / alpha)) + 20),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(np.exp(found.fun))


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
@pytest.mark.parametrize("loss", [1.0, 0.2])
def test_the_best_growing_has_at_every_loss_the_size_that_learns_most_there(
    alpha: float, beta: float, loss: float
) -> None:
    """The closed form is the sum of what each bit of loss costs with the size best for it."""

    def cost(at: float) -> float:
        def of_size(log_size: float) -> float:
            size = np.exp(log_size)
            left = at - size**-alpha
            return float(np.log(size) - (1 / beta + 1) * np.log(left) - np.log(beta))

        least = np.log(at ** (-1 / alpha))
        found = minimize_scalar(of_size, bounds=(least + 1e-9, least + 20), method="bounded")
        return float(np.exp(found.fun))

    growing, _ = quad(cost, loss, np.inf, limit=200)
    expected = growing / static_flops(loss, alpha, beta)
    assert growing_share(alpha, beta) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
def test_two_sizes_save_what_a_search_over_both_and_the_moment_finds(
    alpha: float, beta: float
) -> None:
    small, large, moment = np.meshgrid(
        np.exp(np.linspace(-4, 6, 120)), np.exp(np.linspace(-1, 7, 120)), np.linspace(1.01, 6, 100)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        until, since, after = (
            np.where(left > 0, left, np.nan) ** (-1 / beta)
            for left in (moment - small**-alpha, moment - large**-alpha, 1 - large**-alpha)
        )
    found = np.nanmin(small * until + large * (after - since)) / static_flops(1.0, alpha, beta)
    assert growing_share(alpha, beta, num_sizes=2) == pytest.approx(found, rel=0.01)
    assert growing_share(alpha, beta, num_sizes=2) <= found


@pytest.mark.parametrize(("alpha", "beta"), [*EXPONENTS, *EXTREME])
def test_more_sizes_save_more_and_any_number_most(alpha: float, beta: float) -> None:
    shares = [growing_share(alpha, beta, num_sizes=number) for number in (1, 2, 3, 4)]
    assert shares[0] == pytest.approx(1.0)
    assert all(more < less for less, more in pairwise(shares))
    assert growing_share(alpha, beta) < shares[-1]


@pytest.mark.parametrize(("alpha", "beta"), EXPONENTS)
@pytest.mark.parametrize("ratio", [0.7, 1.0, 3.0])
def test_a_wrong_size_costs_what_it_needs_to_the_same_loss(
    alpha: float, beta: float, ratio: float
) -> None:
    size = ratio * (beta / (alpha + beta)) ** (-1 / alpha)
    expected = size * samples_to(1.0, size, alpha, beta) / static_flops(1.0, alpha, beta)
    assert wrong_size_share(alpha, beta, ratio) == pytest.approx(expected, rel=1e-6)


def test_too_small_a_network_never_comes_to_the_loss() -> None:
    assert wrong_size_share(0.5, 0.5, 0.01) == float("inf")


def test_bad_arguments_are_told() -> None:
    with pytest.raises(
        InvalidArgument, match=r"alpha of a scaling law must be from 0.02 to 5.0, got 0.0"
    ):
        growing_share(0.0, 0.3)
    with pytest.raises(InvalidArgument, match="beta must be a number, got 'x'"):
        growing_share(0.3, "x")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="num_sizes must be a whole number of at least 1"):
        growing_share(0.3, 0.3, num_sizes=0)
    with pytest.raises(
        InvalidArgument, match="ratio of two sizes must be positive and finite, got inf"
    ):
        wrong_size_share(0.3, 0.3, float("inf"))
