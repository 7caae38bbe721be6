"""Log-weights: sums, means, effective sample size.

A weight is a non-negative number kept as its natural logarithm; `-inf` is weight zero.
All functions take a 1-d array-like of log-weights and work in float64.
"""

# arsenal's `logsumexp` and `logmeanexp` are NaN where all weights are zero, as in every population
# that dies, and importing them loads pandas, scipy and matplotlib, which to read a posterior takes
# none of. The tests compare ours with them.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["equal_shares", "ess", "log_mean", "log_sum", "mean", "normalize"]

ArrayLike = Sequence[float] | np.ndarray


def log_sum(log_weights: ArrayLike) -> float:
    """The logarithm of the sum of the weights; `-inf` of nothing.

    >>> log_sum([0.0, 0.0]) == math.log(2)
    True
    >>> log_sum([-math.inf])
    -inf
    """
    array = np.asarray(log_weights, dtype=np.float64)
    peak = array.max(initial=-math.inf)
    if peak == -math.inf:
        return -math.inf
    return float(peak + math.log(np.exp(array - peak).sum()))


def log_mean(log_weights: ArrayLike) -> float:
    """The logarithm of the mean of the weights, those of weight zero included.

    >>> round(log_mean([0.0, -math.inf]), 4)
    -0.6931
    """
    return log_sum(log_weights) - math.log(len(log_weights))


def normalize(log_weights: ArrayLike) -> np.ndarray:
    """The weights divided by their sum; all zero if every weight is zero.

    >>> normalize([0.0, 0.0]).tolist()
    [0.5, 0.5]
    """
    array = np.asarray(log_weights, dtype=np.float64)
    total = log_sum(array)
    if total == -math.inf:
        return np.zeros_like(array)
    weights = np.exp(array - total)
    return weights / weights.sum()


def ess(log_weights: ArrayLike) -> float:
    """The effective sample size (sum w)^2 / sum w^2, between 1 and N; 0 if all are zero.

    >>> round(ess([0.0, 0.0, -math.inf]), 6)
    2.0
    """
    return equal_shares(normalize(log_weights))


def equal_shares(shares: ArrayLike) -> float:
    """As many equal shares as some normalized weights are worth: 1 / sum w^2; 0 of none.

    >>> equal_shares([0.5, 0.5, 0.0])
    2.0
    """
    squares = float(np.square(np.asarray(shares, dtype=np.float64)).sum())
    return 1.0 / squares if squares > 0 else 0.0


def mean(f: Callable[[Any], Any], values: Sequence[Any], shares: np.ndarray) -> Any:
    """The mean of `f(value)`, a float or an array, by the values' normalized weights.

    >>> mean(len, ["a", "abc"], np.array([0.5, 0.5]))
    2.0
    """
    # A weight can underflow to zero, and zero times an infinite f would be NaN.
    found = [
        share * np.asarray(f(value), dtype=np.float64)
        for value, share in zip(values, shares, strict=True)
        if share > 0
    ]
    summed = np.sum(found, axis=0)
    return summed if np.ndim(summed) else float(summed)
