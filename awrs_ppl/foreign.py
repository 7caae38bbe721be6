"""Distributions of torch and scipy, as those of this library.

They are drawn from with the program's own random numbers: the global generators of torch, numpy
and Python stay as they are. Values are floats and ints, or arrays of their own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from awrs_ppl._messages import quoted, shorten
from awrs_ppl._values import key
from awrs_ppl.errors import ModelError

__all__ = ["Foreign", "ScipyDistribution", "TorchDistribution", "adapted", "kind_of"]


class _OfTorch(Protocol):
    @property
    def batch_shape(self) -> Any: ...


class _OfScipy(Protocol):
    @property
    def logpdf(self) -> Any: ...


class _DiscreteOfScipy(Protocol):
    @property
    def logpmf(self) -> Any: ...


# How a type checker knows the distributions that can be taken.
Foreign = _OfTorch | _OfScipy | _DiscreteOfScipy


def adapted(value: Any) -> Any:
    """A distribution of torch or scipy with `sample(rng)` and `log_prob(x)`; else the value.

    Of torch any with one value a draw; of scipy those with parameters, `scipy.stats.norm(0, 1)`
    or `scipy.stats.Normal()`, that can be drawn from and have a density. Raises `ModelError` for
    batches and for scipy's distributions without their parameters.

    >>> from scipy import stats
    >>> round(adapted(stats.norm(0, 1)).log_prob(0.5), 3)
    -1.044
    >>> import torch
    >>> adapted(torch.distributions.Normal(torch.zeros(2), 1.0))
    Traceback (most recent call last):
    awrs_ppl.errors.ModelError: Normal(...) of torch is a batch of 2 distributions: ...
    """
    torch = sys.modules.get("torch.distributions")
    if torch is not None and isinstance(value, torch.Distribution):
        return TorchDistribution(value)
    names = _scipy_names(value)
    if "rv_generic" in names:
        if value.numargs:
            raise ModelError(
                f"scipy.stats.{value.name} has no parameters yet: write "
                f"scipy.stats.{value.name}({value.shapes})"
            )
        value = value()
        names = _scipy_names(value)
    elif names and names[0].endswith("_gen"):
        name = names[0].removesuffix("_gen")
        raise ModelError(f"scipy.stats.{name} has no parameters yet: write scipy.stats.{name}(...)")
    draws = getattr(value, "rvs", getattr(value, "sample", None))
    weighs = getattr(value, "logpdf", getattr(value, "logpmf", None))
    is_frozen = "_ProbabilityDistribution" in names or any(n.endswith("_frozen") for n in names)
    return ScipyDistribution(value, names) if is_frozen and draws and weighs else value


def _scipy_names(value: Any) -> list[str]:
    """The names of the classes of scipy that it is of."""
    return [kind.__name__ for kind in type(value).__mro__ if kind.__module__.startswith("scipy.")]


def kind_of(distribution: Any) -> str:
    """The name of a distribution's family, for fingerprints."""
    if isinstance(distribution, TorchDistribution | ScipyDistribution):
        return distribution.kind
    return type(distribution).__qualname__


class TorchDistribution:
    """A distribution of torch."""

    def __init__(self, distribution: Any) -> None:
        self._distribution = distribution
        batch = tuple(distribution.batch_shape)
        if batch:
            raise ModelError(
                f"{self!r} of torch is a batch of {math.prod(batch)} distributions: sample or "
                "observe one after the other, or make them one with "
                f"torch.distributions.Independent(..., {len(batch)})"
            )

    @property
    def kind(self) -> str:
        """The name of the family, for fingerprints."""
        return f"torch {type(self._distribution).__qualname__}"

    @property
    def compared(self) -> tuple[Any, ...]:
        """What `check_replay` compares."""
        return (self.kind, *[key(_plain(p)) for p in self._parameters()])

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw a value: a number, or an array of the event's shape."""
        import torch

        with torch.no_grad(), _seeded(self._devices(), int(rng.integers(2**63))):
            return _plain(self._distribution.sample())

    def log_prob(self, x: Any) -> float:
        """The log-probability or log-density of `x`; `-inf` outside the support."""
        import torch

        named = f"{self!r} of torch"
        found = x.detach() if isinstance(x, torch.Tensor) else torch.from_numpy(_numbers(named, x))
        _require_shape(named, x, tuple(found.shape), self._distribution.event_shape)
        value = found.to(next(iter(self._devices()), "cpu"))
        # In float64, where the distribution lets its parameters be mixed with it.
        types = [p.dtype for p in self._parameters() if p.is_floating_point()]
        types = [torch.float64, *types, torch.get_default_dtype()]
        failure: Exception | None = None
        with torch.no_grad():
            if value.isnan().any():
                return math.nan
            if not self._supports([value.to(dtype) for dtype in types]):
                return -math.inf
            for dtype in types:
                try:
                    return self._distribution.log_prob(value.to(dtype)).item()
                except (NotImplementedError, RuntimeError, ValueError) as error:
                    failure = error
        raise ModelError(f"{named} cannot weigh {quoted(x)}: {failure}") from failure

    def _supports(self, values: list[Any]) -> bool:
        """Whether a value is in the support: a triangle drawn in float32 is none in float64."""
        try:
            support = self._distribution.support
            return any(bool(support.check(value).all()) for value in values)
        except NotImplementedError:
            return True

    def _parameters(self) -> Iterator[Any]:
        """The tensors that it is made of, those of distributions inside it too."""
        import torch

        open_, met = [self._distribution], set()
        while open_:
            for value in vars(open_.pop(0)).values():
                if isinstance(value, torch.Tensor):
                    yield value
                elif isinstance(value, torch.distributions.Distribution) and id(value) not in met:
                    met.add(id(value))
                    open_.append(value)

    def _devices(self) -> list[Any]:
        return list(dict.fromkeys(p.device for p in self._parameters()))

    def __repr__(self) -> str:
        return quoted(self._distribution)


class ScipyDistribution:
    """A distribution of scipy with its parameters."""

    def __init__(self, distribution: Any, names: list[str]) -> None:
        self._distribution = distribution
        self._is_new = "_ProbabilityDistribution" in names
        self._is_univariate = self._is_new or "rv_frozen" in names
        self._name = names[0].removesuffix("_frozen")
        is_continuous = hasattr(distribution, "logpdf") and "DiscreteDistribution" not in names
        self._weighs = distribution.logpdf if is_continuous else distribution.logpmf
        self._parameters: list[tuple[str, Any]] = []
        if "rv_frozen" in names:
            self._name = distribution.dist.name or type(distribution.dist).__name__
            self._parameters = [("", value) for value in distribution.args]
            self._parameters += sorted(distribution.kwds.items())
            self._require_one(np.broadcast_shapes(*[np.shape(v) for _, v in self._parameters]))
        elif self._is_new:
            self._require_one(getattr(distribution, "_shape", ()))

    @property
    def kind(self) -> str:
        """The name of the family, for fingerprints."""
        return f"scipy {self._name}"

    @property
    def compared(self) -> tuple[Any, ...]:
        """What `check_replay` compares."""
        return (self.kind, *[key(_plain(value)) for _, value in self._parameters])

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw a value: a number, or an array."""
        if self._is_univariate:
            if self._is_new:
                return _plain(self._distribution.sample(rng=rng))
            return _plain(self._distribution.rvs(random_state=rng))
        try:
            drawn = self._distribution.rvs(size=None, random_state=rng)
        except TypeError:  # of those that draw matrices, one by default
            drawn = self._distribution.rvs(random_state=rng)
        if isinstance(drawn, tuple):
            raise ModelError(
                f"{self!r} of scipy draws {len(drawn)} values at once: draw them one after the "
                "other, from distributions of their own"
            )
        self._require_one(np.shape(self._density(drawn)))
        return _plain(drawn)

    def log_prob(self, x: Any) -> float:
        """The log-probability or log-density of `x`; `-inf` outside the support."""
        named = f"{self!r} of scipy"
        value = _numbers(named, x)
        _require_shape(named, x, value.shape, self._event_shape)
        found = self._density(value)
        self._require_one(np.shape(found))
        return float(found)

    @cached_property
    def _event_shape(self) -> tuple[int, ...]:
        # Scipy stretches what does not fit, and has no common name for the shape.
        return () if self._is_univariate else np.shape(self.sample(np.random.default_rng(0)))

    def _density(self, value: Any) -> Any:
        with np.errstate(all="ignore"):
            return self._weighs(value)

    def _require_one(self, shape: tuple[int, ...]) -> None:
        if shape:
            raise ModelError(
                f"{self!r} of scipy is a batch of {math.prod(shape)} distributions: sample or "
                "observe one after the other"
            )

    def __repr__(self) -> str:
        if self._is_new:
            return quoted(self._distribution)
        given = [f"{name}={value!r}" if name else repr(value) for name, value in self._parameters]
        return shorten(f"{self._name}({', '.join(given) if self._is_univariate else '...'})", 60)


@contextmanager
def _seeded(devices: list[Any], seed: int) -> Iterator[None]:
    """Torch's generators with a seed of ours, and as they were afterwards."""
    import torch

    others = [(getattr(torch, d.type), d) for d in devices if d.type != "cpu"]
    before = torch.get_rng_state()
    befores = [module.get_rng_state(device) for module, device in others]
    try:
        torch.default_generator.manual_seed(seed)
        for module, device in others:
            with module.device(device):
                module.manual_seed(seed)
        yield
    finally:
        torch.set_rng_state(before)
        for (module, device), state in zip(others, befores, strict=True):
            module.set_rng_state(state, device)


def _plain(drawn: Any) -> Any:
    """A tensor or array as a number, or as an array that nobody else has."""
    if hasattr(drawn, "detach"):
        drawn = drawn.detach().cpu()
        if not drawn.ndim:
            return drawn.item()
        drawn = (drawn.float() if "bfloat16" in str(drawn.dtype) else drawn).numpy()
    if isinstance(drawn, np.ndarray):
        return drawn.copy() if drawn.ndim else drawn.item()
    return drawn.item() if isinstance(drawn, np.generic) else drawn


def _numbers(named: str, x: Any) -> np.ndarray:
    """A value as an array of its own; truth values as numbers."""
    try:
        array = np.array(x)
    except (TypeError, ValueError, RuntimeError):  # ValueError: lists of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biufc":
        raise ModelError(f"{named} weighs numbers, and got {quoted(x)}")
    return array.astype(np.int64) if array.dtype == np.bool_ else array


def _require_shape(named: str, x: Any, shape: tuple[int, ...], wanted: Any) -> None:
    if shape == tuple(wanted):
        return
    kind = f"arrays of shape {tuple(wanted)}" if wanted else "one number at a time"
    raise ModelError(f"{named} weighs {kind}, and got {quoted(x)} of shape {shape}")
