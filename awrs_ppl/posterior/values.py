"""What a posterior says of its values."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from awrs_ppl._messages import listed, quoted
from awrs_ppl.errors import NoSurvivors
from awrs_ppl.log_weights import mean, normalize
from awrs_ppl.posterior import _display
from awrs_ppl.posterior.by_value import ByValue, merged

if TYPE_CHECKING:
    from awrs_ppl.program.trace import Trace

__all__ = ["Values"]


class Values:
    """The part of a posterior that is about its values and their probabilities."""

    values: list[Any]
    log_weights: np.ndarray
    parts: list[Any]
    method: str
    log_ml_bounds: tuple[float, float] | None
    _traces: list[Trace]

    @property
    def probabilities(self) -> dict[Any, float]:
        """The values and their probabilities, the most probable first.

        Equal values are one, as Python sees equality: `1`, `1.0` and `True` are the same, and a
        list is no tuple. Those that cannot be hashed are keys as well, and found by their equality:
        arrays and tensors by that of all their elements. NaNs are one value.

        >>> from awrs_ppl import Categorical, run
        >>> async def model(ctx):
        ...     return {"n": await ctx.sample(Categorical({1: 3, 2: 1}))}
        >>> probabilities = run(model, n_particles=1000, seed=0, progress=False).probabilities
        >>> probabilities[{"n": 1}] > 0.7, {"n": 3} in probabilities
        (True, False)
        """
        return ByValue((value, share) for _, value, share in self._results)

    @property
    def bounds(self) -> dict[Any, tuple[float, float]] | None:
        """The values, and between which numbers the probability of each is for certain; of all
        that was not found it may have nothing or everything. Of results of `exact` whose evidence
        has bounds; else None.

        >>> import asyncio
        >>> from awrs_ppl import Categorical, exact
        >>> async def model(ctx):
        ...     return await ctx.sample(Categorical({"a": 3, "b": 1}))
        >>> bounds = asyncio.run(exact(model, progress=False)).bounds
        >>> {value: (round(low, 3), round(high, 3)) for value, (low, high) in bounds.items()}
        {'a': (0.75, 0.75), 'b': (0.25, 0.25)}
        """
        if self.log_ml_bounds is None or self.method != "exact":
            return None
        low, high = self.log_ml_bounds
        found = math.exp(min(low - high, 0.0))
        pairs = ((value, (p * found, 1.0 - (1.0 - p) * found)) for _, value, p in self._results)
        return ByValue(pairs)  # pyright: ignore

    def mode(self) -> Any:
        """The most probable value; of several the one found first."""
        self._require()
        return self._results[0][1]

    def top(self, k: int) -> list[tuple[Any, float]]:
        """The `k` most probable values and their probabilities, or all if there are fewer.

        Raises `NoSurvivors` if there are none.
        """
        self._require()
        if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
            raise ValueError(f"k={quoted(k)}: it must be an int of at least 1")
        return [(value, share) for _, value, share in self._results[: int(k)]]

    @overload
    def sample(self, n: None = None, seed: int | None = None) -> Any: ...
    @overload
    def sample(self, n: int, seed: int | None = None) -> list[Any]: ...
    def sample(self, n: int | None = None, seed: int | None = None) -> Any:
        """A value drawn by its probability, or a list of `n` drawn independently.

        The same `seed` gives the same values. Raises `NoSurvivors` if there are none.
        """
        self._require()
        for name, number in (("n", n), ("seed", seed)):
            if number is not None and (not isinstance(number, Integral) or number < 0):
                raise ValueError(f"{name}={number!r}: it must be an int of at least 0, or None")
        rng = np.random.default_rng(seed)
        drawn = rng.choice(len(self.values), size=n, p=self._shares)
        return self.values[drawn] if n is None else [self.values[i] for i in drawn]

    def expect(self, f: Callable[[Any], Any]) -> Any:
        """The mean of `f(value)`, a float or an array, under the posterior.

        Self-normalized: consistent as the particles grow in number, not unbiased. Raises
        `NoSurvivors` if there are no values.
        """
        self._require()
        if not callable(f):
            raise TypeError(f"got {f!r}: give a function of a value")
        return mean(f, self.values, self._shares)

    def probability(self, predicate: Callable[[Any], object]) -> float:
        """The probability that `predicate(value)` is true: `expect` of 0 and 1."""
        if not callable(predicate):
            raise TypeError(f"got {predicate!r}: give a function of a value")
        return self.expect(lambda value: bool(predicate(value)))

    def map(self, f: Callable[[Any], Any]) -> Self:
        """The posterior of `f(value)`: the same particles, weights and costs with other values.

        >>> from awrs_ppl import Categorical, run
        >>> async def number(ctx):
        ...     return await ctx.sample(Categorical([1, 2, 3, 4]))
        >>> posterior = run(number, n_particles=1000, seed=0, progress=False)
        >>> sorted(posterior.map(lambda n: n % 2 == 0).probabilities)
        [False, True]
        """
        if not callable(f):
            raise TypeError(f"got {quoted(f)}: give a function of a value")
        made = copy.copy(self)
        made._traces = []
        for trace in self._traces:
            mapped = copy.copy(trace)
            if trace.finished and trace.log_weight > -np.inf:
                mapped.value = f(trace.value)
            made._traces.append(mapped)
        made.values = [t.value for t in made._traces if t.finished and t.log_weight > -np.inf]
        made.parts = [part.map(f) for part in self.parts]
        return made

    def marginal(self, name: str | None = None, *, field: Hashable = None) -> dict[Any, float]:
        """The probabilities of a choice, by the name of its statement, or of a `field` of the
        values: a key of dicts, an attribute of dataclasses and Pydantic objects, an index of
        tuples and lists.

        Keys are those of `probabilities`. Of a choice that not every particle made, they add up to
        the probability that it was made. Raises `KeyError` for a name or field that nothing has,
        and `NoSurvivors` if there are no values.

        >>> from awrs_ppl import Categorical, run
        >>> async def person(ctx):
        ...     name = await ctx.sample(Categorical(["Ann", "Bob"]), name="who")
        ...     return {"name": name, "age": 7}
        >>> posterior = run(person, n_particles=100, seed=0, progress=False)
        >>> posterior.marginal(field="age"), sorted(posterior.marginal("who"))
        ({7: 1.0}, ['Ann', 'Bob'])
        """
        self._require()
        if (name is None) == (field is None):
            raise TypeError("marginal needs the name of a choice, or field=...: one of the two")
        of: list[Any] = self.values
        if name is not None:
            of = [t for t in self._traces if t.finished and t.log_weight > -np.inf]
        wanted = field if name is None else name
        parts = [_part(one, wanted) for one in of]
        pairs = [(f[0], s) for f, s in zip(parts, self._shares.tolist(), strict=True) if f]
        if not pairs and name is not None:
            names = [*dict.fromkeys(known for trace in of for known in trace)]
            raise KeyError(f"no choice is named {quoted(name)}: there are {listed(names, 12)}")
        if not pairs:
            raise KeyError(f"no value has the field {quoted(field)}: the first is {quoted(of[0])}")
        found = merged([value for value, _ in pairs], [share for _, share in pairs])
        return ByValue((value, share) for _, value, share in found)

    @cached_property
    def _shares(self) -> np.ndarray:
        return normalize(self.log_weights)

    @cached_property
    def _results(self) -> list[tuple[Any, Any, float]]:
        """Entry, the first value that has it, and probability, the most probable first."""
        return merged(self.values, self._shares.tolist())

    def _require(self) -> None:
        """Raise `NoSurvivors` unless there are values."""
        if not self.values:
            raise NoSurvivors(_display.no_survivors(self))  # pyright: ignore[reportArgumentType]


def _part(thing: Any, field: Any) -> tuple[Any] | None:
    """The field of a value, in a tuple; None if it has none."""
    if isinstance(thing, Mapping):
        return (thing[field],) if field in thing else None
    if isinstance(field, str):
        return (getattr(thing, field),) if hasattr(thing, field) else None
    if isinstance(thing, list | tuple) and isinstance(field, Integral):
        at = int(field)
        return (thing[at],) if -len(thing) <= at < len(thing) else None
    return None
