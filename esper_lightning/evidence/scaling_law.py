"""What growing can save beside a static network where losses follow a scaling law.

The law is equation 2 of Hoffmann et al. 2022 (arXiv:2203.15556): a network of some size has, after
so many samples, the loss ``floor + capacity * size ** -alpha + data * samples ** -beta``. Here a
size is training FLOPs per sample, so that a static network costs ``size * samples``. Both answers
depend on the two exponents alone.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole


def growing_share(alpha: float, beta: float, *, num_sizes: int | None = None) -> float:
    """FLOPs that growing needs to a loss, over those of the static network that is best for it.

    It is what the best growing there is can do, if a loss is all that a network has learned: if one
    that has grown learns as fast as one that was as large from the beginning and has come to the
    same loss. Below 1, and the same at every loss.

    Args:
        alpha: exponent of the size, positive.
        beta: exponent of the samples, positive.
        num_sizes: that growing goes through, at least 1; None for any number of them.

    Raises:
        InvalidArgument: an argument outside of what is allowed.

    Example:
        >>> round(growing_share(0.34, 0.28), 3)
        0.946
        >>> round(growing_share(0.34, 0.28, num_sizes=2), 3)
        0.965
    """
    _check_exponents(alpha, beta)
    p, q = 1 / alpha, 1 / beta
    if num_sizes is None:
        return float((1 + 1 / (p + q)) ** (p + q + 1) / (1 + 1 / q) ** (q + 1))
    check_whole("num_sizes", num_sizes, least=1)
    best = _best_size(alpha, beta)
    static = best * (1 - best**-alpha) ** -q

    def log_flops(choice: NDArray[np.float64]) -> float:
        # Losses above the floor at which it grows, the last of them the one to reach.
        until = np.append(1 + np.cumsum(np.exp(choice[num_sizes:]))[::-1], 1.0)
        since = np.append(np.inf, until[:-1])
        # The part of each loss that is due to capacity, between 0 and 1, tells the size.
        limit = until * expit(choice[:num_sizes])
        samples = (until - limit) ** -q - (since - limit) ** -q
        return float(np.log(limit**-p @ samples))

    begin = np.append(np.full(num_sizes, logit(best**-alpha)), np.full(num_sizes - 1, -1.0))
    return float(np.exp(minimize(log_flops, begin, method="BFGS").fun) / static)


def wrong_size_share(alpha: float, beta: float, ratio: float) -> float:
    """FLOPs to a loss with a static network of another size, over those of the best one.

    Args:
        alpha: exponent of the size, positive.
        beta: exponent of the samples, positive.
        ratio: of the size to the best one, positive.

    Returns:
        At least 1; infinity for a network that is too small to come to the loss at all.

    Raises:
        InvalidArgument: an argument outside of what is allowed.

    Example:
        >>> round(wrong_size_share(0.34, 0.28, 4), 2)
        1.53
    """
    _check_exponents(alpha, beta)
    _check_positive("ratio", ratio)
    best = _best_size(alpha, beta)
    left, at_best = (1 - size**-alpha for size in (best * ratio, best))
    return float(ratio * (at_best / left) ** (1 / beta)) if left > 0 else float("inf")


def _best_size(alpha: float, beta: float) -> float:
    """The best static size to a loss of 1 above the floor, where capacity and data are 1.

    Least ``size * samples`` with ``size ** -alpha + samples ** -beta == 1``: capacity has the part
    ``beta / (alpha + beta)`` of the loss.
    """
    return float((beta / (alpha + beta)) ** (-1 / alpha))


def _check_exponents(alpha: float, beta: float) -> None:
    _check_positive("alpha", alpha)
    _check_positive("beta", beta)


def _check_positive(name: str, value: float) -> None:
    check_number(name, value)
    if not 0 < value < float("inf"):
        raise InvalidArgument(f"{name} of a scaling law must be positive and finite, got {value!r}")
