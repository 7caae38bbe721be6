"""Distributions for `ctx.sample` and `ctx.observe`.

A distribution is any object with `sample(rng)`, a value drawn with a numpy `Generator`, and
`log_prob(x)`, the natural logarithm of the probability or density of `x`. Those of torch and
scipy are taken as they are; see `awrs_ppl.foreign`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from awrs_ppl._messages import quoted
from awrs_ppl._values import same

__all__ = ["Bernoulli", "Categorical", "Distribution", "Uniform", "as_number"]

T = TypeVar("T")

_TINY = 1e-300  # below it a float loses digits


@runtime_checkable
class Distribution(Protocol):
    """What `ctx.sample` and `ctx.observe` need of a distribution.

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

    A dict gives both, values with their weights. Values need not be hashable; equal ones add up,
    arrays and tensors by their elements. Weights are numbers of any size. Raises `ValueError` on
    no values, on a negative or non-finite weight, and if all weights are zero; `TypeError` on
    what is no list and on weights that are no numbers.

    >>> coin = Categorical({"heads": 3, "tails": 1})
    >>> round(math.exp(coin.log_prob("heads")), 3)
    0.75
    >>> coin.log_prob("edge")
    -inf
    >>> Categorical(["a", "b"], weights=[1e308, 1e308])
    Categorical(['a', 'b'], weights=[0.5, 0.5])
    """

    def __init__(
        self,
        values: Iterable[T] | Mapping[T, float],
        weights: Iterable[float] | None = None,
    ) -> None:
        if isinstance(values, Mapping):
            if weights is not None:
                raise ValueError(
                    f"Categorical got the dict {quoted(values)} and weights={quoted(weights)}: a "
                    "dict has the weights in it already, so leave weights= out"
                )
            values, weights = list(values), list(values.values())
        try:
            self.values = tuple(values)
        except TypeError as error:
            raise TypeError(
                f"Categorical got {values!r}: give it the values, such as a list"
            ) from error
        if not self.values:
            raise ValueError("Categorical needs at least one value, got none")
        given = [1.0] * len(self.values) if weights is None else _listed(weights)
        if len(given) != len(self.values):
            raise ValueError(
                f"Categorical got {len(self.values)} values and weights {quoted(weights)}: "
                "give one weight for each value"
            )
        for weight, value in zip(given, self.values, strict=True):
            if not 0 <= weight < math.inf:
                raise ValueError(
                    f"Categorical got the weight {weight!r} for {quoted(value)}: weights must be "
                    "finite, non-negative and not all zero"
                )
        if not any(given):
            raise ValueError(
                f"Categorical got weights {quoted(weights)}: weights must be finite, "
                "non-negative and not all zero"
            )
        self._weights = given
        self.probabilities = _shares(given)

    def sample(self, rng: np.random.Generator) -> T:
        """Draw one of the values."""
        return self.at(rng.random())

    def at(self, position: float) -> T:
        """The value at a position in [0, 1), where each has its probability as its length."""
        ends = self.probabilities.cumsum()
        return self.values[int((ends / ends[-1]).searchsorted(position, side="right"))]

    def log_prob(self, x: Any) -> float:
        """The log-probability of `x`."""
        indices = [i for i, value in enumerate(self.values) if same(value, x)]
        mass = float(sum(self.probabilities[indices].tolist()))
        if mass > _TINY:
            return math.log(mass)
        # Beside very large weights a small one is no float, but its logarithm is.
        weight = sum((Fraction(*self._weights[i].as_integer_ratio()) for i in indices), Fraction())
        if not weight:
            return -math.inf
        total = sum(Fraction(*w.as_integer_ratio()) for w in self._weights)
        share = weight / total
        return math.log(share.numerator) - math.log(share.denominator)

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
        return self.at(rng.random())

    def at(self, position: float) -> bool:
        """The truth value at a position in [0, 1), of which the first `p` are `True`."""
        return bool(position < self.p)

    def log_prob(self, x: Any) -> float:
        """The log-probability of `x` (anything equal to `True` or `False`)."""
        number = as_number(x)
        if number == 0.0:
            return math.log1p(-self.p) if self.p < 1.0 else -math.inf
        return math.log(self.p) if number == 1.0 and self.p > 0.0 else -math.inf

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
        if self.high - self.low == math.inf:
            raise ValueError(
                f"Uniform got low={low!r}, high={high!r}: they are further apart than the largest "
                "float, so bring them nearer"
            )

    def sample(self, rng: np.random.Generator) -> float:
        """Draw a float."""
        # Rounding may lead up to `high`, where the density is zero.
        return min(float(rng.uniform(self.low, self.high)), math.nextafter(self.high, self.low))

    def log_prob(self, x: Any) -> float:
        """The log-density at `x`."""
        inside = self.low <= as_number(x) < self.high
        return -math.log(self.high - self.low) if inside else -math.inf

    def __repr__(self) -> str:
        return f"Uniform({self.low!r}, {self.high!r})"


def as_number(value: Any) -> float:
    """A value as a float; NaN if it is no number."""
    try:
        if isinstance(value, str | bytes):
            return math.nan
        value = value.detach() if hasattr(value, "detach") else value  # torch warns otherwise
        return float(value.item() if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: of torch
        return math.nan


def _listed(weights: Any) -> list[Any]:
    """Weights as a list of Python's numbers, or of what is as exact."""
    try:
        listed = weights.tolist() if hasattr(weights, "tolist") else list(weights)
        found = [w.item() if hasattr(w, "item") else w for w in listed]
    except (TypeError, ValueError, RuntimeError):  # ValueError, RuntimeError: of arrays, tensors
        found = [None]
    if all(isinstance(w, Real | Decimal) for w in found):
        # A Decimal that is NaN cannot be compared.
        return [math.nan if isinstance(w, Decimal) and w.is_nan() else w for w in found]
    raise TypeError(f"Categorical got weights {quoted(weights)}: weights must be a list of numbers")


def _shares(weights: Sequence[Any]) -> np.ndarray:
    """The weights over their sum, which may be too large or too small for a float."""
    try:
        with np.errstate(over="ignore"):  # of numpy's long doubles
            array = np.array(weights, dtype=np.float64)
    except OverflowError:
        array = np.full(len(weights), np.inf)
    # Fractions and decimals may be beyond all floats, or where these lose digits; so may shares
    # beside a large weight.
    least = _TINY * max(1.0, array.max())
    small = any(weight and number < least for weight, number in zip(weights, array, strict=True))
    if small or not np.isfinite(array).all():
        exact = [Fraction(*weight.as_integer_ratio()) for weight in weights]
        total = sum(exact)
        return np.array([float(weight / total) for weight in exact])
    # A power of two changes no digits.
    array = np.ldexp(array, -np.frexp(array.max())[1])
    return array / array.sum()
