"""What growing can save beside a static network where losses follow a scaling law.

The law is equation 2 of Hoffmann et al. 2022 (arXiv:2203.15556): a network of some size has, after
so many samples, the loss ``floor + capacity * size ** -alpha + data * samples ** -beta``. Here a
size is training FLOPs per sample, so that a static network costs ``size * samples``. Both answers
depend on the two exponents alone.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from esper_lightning.leyline import InvalidArgument
from esper_lightning.leyline.arguments import check_number, check_whole


def growing_share(alpha: float, beta: float, *, num_sizes: int | None = None) -> float:
    """FLOPs that growing needs to a loss, over those of the static network that is best for it.

    It is what the best growing there is can do, if a loss is all that a network has learned: if one
    that has grown learns as fast as one that was as large from the beginning and has come to the
    same loss. Below 1, and the same at every loss.

    Args:
        alpha: exponent of the size, from 0.02 to 5.
        beta: exponent of the samples, likewise.
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
    log_static = np.log(best) - q * np.log1p(-(best**-alpha))

    def log_flops(choice: NDArray[np.float64]) -> float:
        # Logarithms of the losses above the floor at which it grows, the last the one to reach.
        until = np.append(np.cumsum(np.exp(choice[num_sizes:]))[::-1], 0.0)
        # The part of each loss that is due to capacity, between 0 and 1, tells the size.
        capacity = until - np.logaddexp(0, -choice[:num_sizes])
        left = until - np.logaddexp(0, choice[:num_sizes])
        # What the loss that a stage begins with would leave, for the size that it has.
        begun = until[:-1] + np.log(-np.expm1(capacity[1:] - until[:-1]))
        known = np.append(-np.inf, -q * begun) + q * left
        return float(logsumexp(-p * capacity - q * left + np.log(-np.expm1(known))))

    gaps = np.full(num_sizes - 1, -np.log(p + q))
    begin = np.append(np.full(num_sizes, np.log(beta / alpha)), gaps)
    return float(np.exp(minimize(log_flops, begin, method="BFGS").fun - log_static))


def wrong_size_share(alpha: float, beta: float, ratio: float) -> float:
    """FLOPs to a loss with a static network of another size, over those of the best one.

    Args:
        alpha: exponent of the size, from 0.02 to 5.
        beta: exponent of the samples, likewise.
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
    check_number("ratio", ratio)
    if not 0 < ratio < float("inf"):
        raise InvalidArgument(f"ratio of two sizes must be positive and finite, got {ratio!r}")
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
    for name, exponent in (("alpha", alpha), ("beta", beta)):
        check_number(name, exponent)
        if not _LEAST <= exponent <= _MOST:
            raise InvalidArgument(
                f"{name} of a scaling law must be from {_LEAST} to {_MOST}, got {exponent!r}"
            )


_LEAST, _MOST = 0.02, 5.0
