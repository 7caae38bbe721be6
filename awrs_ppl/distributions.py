"""Distributions for `ctx.sample` and `ctx.observe`.

A distribution is any object with `sample(rng)`, a value drawn with a numpy `Generator`, and
`log_prob(x)`, the natural logarithm of the probability or density of `x`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

__all__ = ["Bernoulli", "Categorical", "Distribution", "Uniform", "as_number"]

T = TypeVar("T")


@runtime_checkable
class Distribution(Protocol):
    """What `ctx.sample` and `ctx.observe` ask of a distribution.

    >>> isinstance(Bernoulli(0.5), Distribution)
    True
    """

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw a value."""
        ...

    def log_prob(self, x: Any) -> float:
        """The log-probability or log-density of a value; `-inf` outside the support."""
        ...


class Categorical(Generic[T]):
    """One of `values`, with probabilities proportional to `weights` (equal by default).

    Values need not be hashable; equal ones add up. Raises `ValueError` on no values, on a
    negative or non-finite weight, and if all weights are zero; `TypeError` on what is no list.

    >>> coin = Categorical(["heads", "tails"], weights=[3, 1])
    >>> round(math.exp(coin.log_prob("heads")), 3)
    0.75
    >>> coin.log_prob("edge")
    -inf
    """

    def __init__(self, values: Iterable[T], weights: Sequence[float] | None = None) -> None:
        try:
            self.values = tuple(values)
        except TypeError as error:
            raise TypeError(
                f"Categorical got {values!r}: give it the values, such as a list"
            ) from error
        if not self.values:
            raise ValueError("Categorical needs at least one value, got none")
        weights = [1.0] * len(self.values) if weights is None else weights
        try:
            array = np.array(weights, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"Categorical got weights {weights!r}: weights must be numbers"
            ) from error
        if array.shape != (len(self.values),):
            raise ValueError(
                f"Categorical got {len(self.values)} values and weights {weights!r}: "
                "give one weight for each value"
            )
        if not np.isfinite(array).all() or (array < 0).any() or array.sum() == 0:
            raise ValueError(
                f"Categorical got weights {weights!r}: weights must be finite, "
                "non-negative and not all zero"
            )
        self.probabilities = array / array.sum()

    def sample(self, rng: np.random.Generator) -> T:
        """Draw one of the values."""
        return self.values[int(rng.choice(len(self.values), p=self.probabilities))]

    def log_prob(self, x: Any) -> float:
        """The log-probability of `x`."""
        mass = sum(
            float(p) for value, p in zip(self.values, self.probabilities, strict=True) if value == x
        )
        return math.log(mass) if mass > 0 else -math.inf

    def __repr__(self) -> str:
        return f"Categorical({list(self.values)!r}, weights={self.probabilities.tolist()!r})"


class Bernoulli:
    """`True` with probability `p`, else `False`.

    >>> Bernoulli(1.0).sample(np.random.default_rng(0))
    True
    """

    def __init__(self, p: float) -> None:
        if not 0.0 <= as_number(p) <= 1.0:
            raise ValueError(f"Bernoulli got p={p!r}: give a probability between 0 and 1")
        self.p = float(p)

    def sample(self, rng: np.random.Generator) -> bool:
        """Draw a truth value."""
        return bool(rng.random() < self.p)

    def log_prob(self, x: Any) -> float:
        """The log-probability of `x` (anything equal to `True` or `False`)."""
        number = as_number(x)
        p = self.p if number == 1.0 else 1.0 - self.p if number == 0.0 else 0.0
        return math.log(p) if p > 0 else -math.inf

    def __repr__(self) -> str:
        return f"Bernoulli({self.p!r})"


class Uniform:
    """A float, uniform on [`low`, `high`).

    >>> Uniform(0, 4).log_prob(1) == -math.log(4)
    True
    """

    def __init__(self, low: float, high: float) -> None:
        if not -math.inf < as_number(low) < as_number(high) < math.inf:
            raise ValueError(f"Uniform got low={low!r}, high={high!r}: give finite low < high")
        self.low, self.high = float(low), float(high)

    def sample(self, rng: np.random.Generator) -> float:
        """Draw a float."""
        return float(rng.uniform(self.low, self.high))

    def log_prob(self, x: Any) -> float:
        """The log-density at `x`."""
        inside = self.low <= as_number(x) < self.high
        return -math.log(self.high - self.low) if inside else -math.inf

    def __repr__(self) -> str:
        return f"Uniform({self.low!r}, {self.high!r})"


def as_number(value: Any) -> float:
    """A value as a float; NaN if it is no number."""
    try:
        return math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
