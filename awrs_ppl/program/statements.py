"""The statements of a model, a class each: what it is about, and what serving it gives.

Those about texts, `Generate` and `Observe`, are in `text_statements`.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from awrs_ppl._concurrency import resolve
from awrs_ppl.errors import ModelError
from awrs_ppl.foreign import kind_of
from awrs_ppl.program.arguments import (
    distribution_of,
    function_of,
    log_prob,
    log_weight_of,
    truth_of,
)

__all__ = ["Call", "Condition", "Factor", "Sample", "Statement"]

Rng = Callable[[], np.random.Generator]


class Statement:
    """What one statement of a model requests: immutable, so that clones share it.

    A statement that `is_weighted` changes the weight, and particles are synchronized after it; one
    that `filters` only lets through or stops. One that `gives` a value is in the repr of a trace;
    one that `is_random` is to give another value to each of several equal particles (a `call` is
    not: it is made once for a heavy particle, and what it gives is mostly the same).
    `fingerprint` is what a replay compares beside the class and the name, `compared` what a strict
    replay compares, too. `lms` are the language models that it uses. Of what serving it raises,
    `errors` are raised in the model; the rest ends the inference.
    """

    __slots__ = ("name",)

    kind: ClassVar[str]
    gives: ClassVar[bool] = False
    is_weighted: bool = True
    filters: bool = False
    is_random: ClassVar[bool] = False
    fingerprint: tuple[str, ...] = ()
    compared: tuple[Any, ...] = ()
    lms: tuple[Any, ...] = ()
    errors: type[Exception] | tuple[type[Exception], ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

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

    __slots__ = ("compared", "distribution", "fingerprint", "is_weighted", "proposal")
    kind = "sample"
    gives = True
    errors = Exception
    is_random = True

    def __init__(self, name: str, distribution: Any, proposal: Any = None) -> None:
        super().__init__(name)
        self.distribution = distribution_of(distribution)
        self.proposal = None if proposal is None else distribution_of(proposal)
        self.is_weighted = proposal is not None
        self.fingerprint = (kind_of(self.distribution),)
        self.compared = (self.distribution, self.proposal)

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

    __slots__ = ("compared", "log_weight")
    kind = "factor"

    def __init__(self, name: str, log_weight: Any) -> None:
        super().__init__(name)
        self.log_weight = log_weight_of(log_weight)
        self.compared = (self.log_weight,)

    async def weigh(self, rng: Rng) -> tuple[None, float]:
        return None, self.log_weight


class Condition(Statement):
    """`ctx.condition`: the weight times 1 or 0."""

    __slots__ = ("compared", "ok")
    kind = "condition"
    filters = True

    def __init__(self, name: str, ok: Any) -> None:
        super().__init__(name)
        self.ok = truth_of(ok)
        self.compared = (self.ok,)

    async def weigh(self, rng: Rng) -> tuple[None, float]:
        return None, 0.0 if self.ok else -math.inf


class Call(Statement):
    """`ctx.call`: a function outside the library, called once."""

    __slots__ = ("args", "compared", "fingerprint", "function")
    kind = "call"
    gives = True
    is_weighted = False

    def __init__(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(name)
        self.function, self.args = function_of(function), args
        self.fingerprint = (getattr(function, "__qualname__", type(function).__qualname__),)
        self.compared = (function, args)

    async def answer(self, rng: Rng, context: contextvars.Context) -> Any:
        """Call the function where the model's context variables are seen."""
        value = context.run(self.function, *self.args)
        if asyncio.iscoroutine(value):
            value = asyncio.get_running_loop().create_task(value, context=context)
        return await resolve(value)
