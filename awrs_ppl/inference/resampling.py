"""Resampling schemes: which particle each slot of the next population continues.

A scheme takes normalized weights (shape `[n]`, sum 1) and a generator, and returns exactly `n`
ancestor indices (shape `[n]`, in any order), for slots are fixed and all children get the mean
weight: schemes with a random number of children, or with unequal weights afterwards, do not fit.
All are unbiased: ancestor i is chosen `n * weights[i]` times in expectation.
Source: Douc, Cappé, Moulines, "Comparison of resampling schemes for particle filtering", 2005.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from awrs_ppl.errors import ModelError

__all__ = ["SCHEMES", "Resampling", "multinomial", "residual", "stratified", "systematic"]


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

_WITH_CHILDREN = ("auto", "children")
# The effective sample size, as a share of the slots, below which they are resampled, and below
# which children compete. Competing costs more than it gains where hardly any child is worth less
# than others: on long texts of which 3 % are rejected at a token, competing at each token has 5 to
# 6 times the variance of the evidence, and below 0.75 no more than resampling; where children win,
# half of that is lost below 0.5 and nothing below 0.75.
_THRESHOLD, _OF_CHILDREN = 0.5, 0.75


@dataclass(frozen=True, slots=True)
class Resampling:
    """How a population is resampled: by `scheme` where its effective sample size is below
    `ess_threshold` of the slots, and by competing children below `of_children`, if not 0."""

    name: str
    scheme: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    ess_threshold: float
    of_children: float

    @classmethod
    def of(cls, name: Any, ess_threshold: Any) -> Resampling:
        """The options of a user. Raises `ModelError` for wrong ones."""
        if ess_threshold is not None and not (
            isinstance(ess_threshold, int | float) and 0 <= ess_threshold <= 1
        ):
            raise ModelError(
                f"ess_threshold={ess_threshold!r}: it must be between 0 and 1, or None"
            )
        choices = [*_WITH_CHILDREN, *sorted(SCHEMES)]
        if not isinstance(name, str) or name not in choices:
            raise ModelError(f"resampling={name!r}: choose one of {choices}")
        return cls(
            name,
            SCHEMES.get(name, stratified),
            _THRESHOLD if ess_threshold is None else ess_threshold,
            (_OF_CHILDREN if ess_threshold is None else ess_threshold)
            if name in _WITH_CHILDREN
            else 0.0,
        )
