"""The statements of a model, a class each: what it is about, and what serving it gives.

Those about texts, `Generate` and `Observe`, are in `text_statements`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from awrs_ppl._concurrency import resolve
from awrs_ppl._messages import quoted
from awrs_ppl.distributions import Distribution, as_number
from awrs_ppl.errors import ModelError
from awrs_ppl.foreign import adapted, kind_of

__all__ = ["Call", "Condition", "Factor", "Sample", "Statement", "log_prob"]

Rng = Callable[[], np.random.Generator]


class Statement:
    """What one statement of a model requests: immutable, so that clones share it.

    A statement that `is_weighted` changes the weight, and particles are synchronized after it.
    One that `gives` a value is in the repr of a trace. `fingerprint` is what a replay
    compares beside the class and the name, `compared` what a strict replay compares, too.
    """

    __slots__ = ("name",)

    kind: ClassVar[str]
    gives: ClassVar[bool] = False
    fingerprint: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def is_weighted(self) -> bool:
        """Whether it changes the weight."""
        return True

    @property
    def filters(self) -> bool:
        """Whether it only lets through or stops."""
        return False

    @property
    def compared(self) -> tuple[Any, ...]:
        """What `check_replay` compares of two of a kind."""
        return ()

    @property
    def lms(self) -> tuple[Any, ...]:
        """The language models that it uses."""
        return ()

    @property
    def errors(self) -> type[Exception] | tuple[type[Exception], ...]:
        """What is raised in the model if serving raises it; the rest ends the inference."""
        return ()

    async def answer(self, rng: Rng, context: contextvars.Context) -> Any:
        """The value of a statement that is not weighted. `context` is that of the model."""
        raise NotImplementedError

    async def weigh(self, rng: Rng) -> tuple[Any, float]:
        """The value and the log-weight of a weighted statement that is served in one step."""
        raise NotImplementedError

    def shows(self, whole: bool = False) -> str:
        """The statement as text, for messages; `whole` with what `check_replay` compares."""
        parts = [*map(str, self.fingerprint)]
        if whole and self.compared:
            parts.append(", ".join(map(repr, self.compared)))
        return f"{self.kind} {self.name!r} ({', '.join(parts) or '-'})"


class Sample(Statement):
    """`ctx.sample`: a draw from a distribution, or from `proposal` with a weight."""

    __slots__ = ("distribution", "fingerprint", "proposal")
    kind = "sample"
    gives = True

    def __init__(self, name: str, distribution: Any, proposal: Any = None) -> None:
        super().__init__(name)
        self.distribution = _distribution(distribution)
        self.proposal = None if proposal is None else _distribution(proposal)
        self.fingerprint = (kind_of(self.distribution),)

    @property
    def is_weighted(self) -> bool:
        return self.proposal is not None

    @property
    def compared(self) -> tuple[Any, ...]:
        return (self.distribution, self.proposal)

    @property
    def errors(self) -> type[Exception]:
        return Exception

    async def answer(self, rng: Rng, context: contextvars.Context) -> Any:
        return self.distribution.sample(rng())

    async def weigh(self, rng: Rng) -> tuple[Any, float]:
        """A draw from the proposal, and the ratio that makes it one from the distribution."""
        proposal = self.proposal
        assert proposal is not None
        value = proposal.sample(rng())
        proposed = log_prob(proposal, value)
        if proposed == -math.inf:
            raise ModelError(f"{proposal!r} drew {value!r}, to which it gives probability 0")
        return value, log_prob(self.distribution, value) - proposed


class Factor(Statement):
    """`ctx.factor`: the weight times exp(`log_weight`)."""

    __slots__ = ("log_weight",)
    kind = "factor"

    def __init__(self, name: str, log_weight: Any) -> None:
        super().__init__(name)
        number = as_number(log_weight)
        if isinstance(log_weight, bool | np.bool_) or math.isnan(number) or number == math.inf:
            raise ModelError(
                f"ctx.factor got {quoted(log_weight)}: a log-weight is a number or -inf; "
                + (_slip(log_weight) or "for a probability p write ctx.factor(math.log(p))")
            )
        self.log_weight = number

    @property
    def compared(self) -> tuple[Any, ...]:
        return (self.log_weight,)

    async def weigh(self, rng: Rng) -> tuple[None, float]:
        return None, self.log_weight


class Condition(Statement):
    """`ctx.condition`: the weight times 1 or 0."""

    __slots__ = ("ok",)
    kind = "condition"

    def __init__(self, name: str, ok: Any) -> None:
        super().__init__(name)
        self.ok = _truth(ok)

    @property
    def filters(self) -> bool:
        return True

    @property
    def compared(self) -> tuple[Any, ...]:
        return (self.ok,)

    async def weigh(self, rng: Rng) -> tuple[None, float]:
        return None, 0.0 if self.ok else -math.inf


class Call(Statement):
    """`ctx.call`: a function outside the library, called once."""

    __slots__ = ("args", "fingerprint", "function")
    kind = "call"
    gives = True

    def __init__(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(name)
        if not callable(function):
            raise ModelError(f"ctx.call got {function!r}: write ctx.call(function, *args)")
        self.function, self.args = function, args
        self.fingerprint = (getattr(function, "__qualname__", type(function).__qualname__),)

    @property
    def is_weighted(self) -> bool:
        return False

    @property
    def compared(self) -> tuple[Any, ...]:
        return (self.function, self.args)

    async def answer(self, rng: Rng, context: contextvars.Context) -> Any:
        """Call the function where the model's context variables are seen."""
        value = context.run(self.function, *self.args)
        if asyncio.iscoroutine(value):
            value = asyncio.get_running_loop().create_task(value, context=context)
        return await resolve(value)


def log_prob(distribution: Distribution, value: Any) -> float:
    """The checked log-probability of a value. Raises `ModelError` on NaN and +inf."""
    found = distribution.log_prob(value)
    number = as_number(found)
    if math.isnan(number) or number == math.inf:
        raise ModelError(
            f"{distribution!r}.log_prob({value!r}) is {quoted(found)}: it must be a number or -inf"
        )
    return number


def _distribution(given: Any) -> Any:
    """What `ctx.sample` draws from. Raises `ModelError`."""
    found = adapted(given)
    if isinstance(found, type) or not isinstance(found, Distribution):
        raise ModelError(
            f"ctx.sample got {quoted(given)}: it needs an object with sample(rng), rng a numpy "
            "Generator, and log_prob(x), such as Categorical(['a', 'b']), or a distribution of "
            "torch or scipy, such as scipy.stats.norm(0, 1)"
        )
    return found


def _truth(ok: Any) -> bool:
    """What a condition says. Raises `ModelError` where that is hardly what is meant."""
    slip = _slip(ok)
    if slip is None and isinstance(ok, str | bytes):
        slip = "a text is true unless it is empty: compare it, as in text == 'yes'"
    if slip is None and isinstance(ok, list | tuple | set | frozenset | dict) and _is_several(ok):
        slip = "it is true unless it is empty: put all(...) or any(...) around it"
    if slip is None and not (hasattr(type(ok), "__bool__") or hasattr(type(ok), "__len__")):
        slip = "it is always true: write a comparison, such as ... is not None"
    if slip is not None:
        raise ModelError(f"ctx.condition got {quoted(ok)}; {slip}")
    try:
        if ok != ok:
            raise ModelError(
                f"ctx.condition got {quoted(ok)}, which is neither true nor false: compare what "
                "it was computed from"
            )
        return bool(ok)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        # Of torch, numpy, pandas and decimal.
        raise ModelError(
            f"ctx.condition got {quoted(ok)}, which is neither true nor false: {error}"
        ) from error


def _is_several(values: Any) -> bool:
    return len(values) > 0 and all(isinstance(value, bool | np.bool_) for value in values)


def _slip(value: Any) -> str | None:
    """The mistake that most often brings such a value, and what to write instead."""
    if value is None:
        return "a function that ends without `return` gives None: does one lack it?"
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()  # or Python warns that it was never awaited
        return "it is always true: await it first"
    if inspect.isasyncgen(value) or isinstance(value, Iterator):
        return "it is always true: put all(...) or any(...) around it"
    if callable(value):
        shown = getattr(value, "__name__", "f").replace("<lambda>", "f")
        return f"a function is always true: call it, as in {shown}(...)"
    return None
