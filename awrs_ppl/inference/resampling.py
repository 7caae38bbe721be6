"""Resampling schemes: which particle each slot of the next population continues.

A scheme takes normalized weights (shape `[n]`, sum 1) and a generator, and returns exactly `n`
ancestor indices (shape `[n]`, in any order), for slots are fixed and all children get the mean
weight: schemes with a random number of children, or with unequal weights afterwards, do not fit.
All are unbiased: ancestor i is chosen `n * weights[i]` times in expectation.
Source: Douc, Cappé, Moulines, "Comparison of resampling schemes for particle filtering", 2005.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["SCHEMES", "multinomial", "residual", "stratified", "systematic"]


def _invert(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """The quantiles of `weights` at sorted or unsorted `uniforms` in [0, 1)."""
    cumulative = np.cumsum(weights)
    # Divided, so that rounding in the sum never leaves a uniform beyond the last weight;
    # side="right", so that a weight of zero is never an ancestor.
    return np.searchsorted(cumulative / cumulative[-1], uniforms, side="right")


def multinomial(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent draws.

    >>> multinomial(np.array([0.0, 1.0]), np.random.default_rng(0)).tolist()
    [1, 1]
    """
    return np.sort(_invert(weights, rng.random(len(weights))))


def stratified(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One draw in each of `n` equal strata of [0, 1).

    >>> stratified(np.array([0.5, 0.5]), np.random.default_rng(0)).tolist()
    [0, 1]
    """
    n = len(weights)
    return _invert(weights, (np.arange(n) + rng.random(n)) / n)


def systematic(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One uniform, shifted through all strata.

    >>> systematic(np.array([0.25, 0.75]), np.random.default_rng(0)).tolist()
    [1, 1]
    """
    n = len(weights)
    return _invert(weights, (np.arange(n) + rng.random()) / n)


def residual(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The whole part of `n * weights` for certain, the rest by independent draws.

    >>> residual(np.array([0.5, 0.5]), np.random.default_rng(0)).tolist()
    [0, 1]
    """
    n = len(weights)
    expected = n * weights
    # A weight of 1/n that rounding made slightly smaller is still one certain copy.
    copies = np.floor(expected + 1e-12).astype(np.int64)
    certain = np.repeat(np.arange(n), copies)
    missing = n - len(certain)
    if missing <= 0:
        return certain[:n]
    remainder = np.maximum(expected - copies, 0.0)
    return np.sort(np.concatenate([certain, _invert(remainder, rng.random(missing))]))


SCHEMES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "multinomial": multinomial,
    "stratified": stratified,
    "systematic": systematic,
    "residual": residual,
}
