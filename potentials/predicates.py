"""A Boolean potential from one function over text."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np

from awrs_ppl._messages import show
from awrs_ppl.constraints.arguments import (
    check_workers,
    function,
    hidden,
    is_async,
    require_cost,
)
from awrs_ppl.constraints.function_key import function_key
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.errors import PotentialError
from awrs_ppl.tokens.text import continuing, decode

__all__ = ["Predicate", "predicate"]

Verdict = bool | Awaitable[bool]

# How many candidates are checked at once where a check waits.
SPECULATION = 8
# What a check is worth by default, in rows of the language model: one in another process takes
# about a millisecond and a process, and one that is awaited mostly asks a service or a database.
_IN_PROCESS, _AWAITED = 1 / 16, 1.0


@dataclass(frozen=True, slots=True)
class _State:
    """The bytes so far. Where `future` is known, comparisons ignore all else."""

    data: bytes = field(compare=False)
    pending: bytes
    future: Hashable


class Predicate(BooleanPotential):
    """The texts all of whose prefixes a function accepts; made by `@predicate`.

    On a text that ends within a multi-byte character the verdict waits for the rest of it, and no
    text can end there; bytes that are no UTF-8 are rejected. The function is still callable.

    >>> Predicate(str.islower)("a")
    True
    """

    called = "predicate"
    arguments = (
        function("_function"),
        hidden("_complete", function_key),
        hidden("_future", function_key),
        hidden("_on_error"),
    )

    def __init__(
        self,
        function: Callable[[str], Verdict],
        *,
        complete: Callable[[str], Verdict] | None = None,
        state: Callable[[str], Hashable] | None = None,
        on_error: Literal["raise", "reject"] = "raise",
        workers: int | None = None,
        time_limit: float | None = None,
        cost: float | None = None,
    ) -> None:
        for given in (function, complete, state):
            if given is not None and not callable(given):
                raise TypeError(f"predicate got {given!r}: it needs a function over text")
        if not isinstance(on_error, str) or on_error not in ("raise", "reject"):
            raise ValueError(f"predicate got on_error={on_error!r}: choose 'raise' or 'reject'")
        check_workers("predicate", workers, time_limit, (function, complete))
        super().__init__()
        waits = is_async(function) or is_async(complete)
        if waits or workers is not None:
            self.speculation = SPECULATION
            self.cost = _AWAITED if waits else _IN_PROCESS
        if cost is not None:
            self.cost = require_cost(cost, "predicate")
        self._function = self.__wrapped__ = function
        self._complete = complete
        self._future = state
        self._on_error = on_error
        self._workers = workers
        self._time_limit = time_limit
        self.name = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = function.__doc__

    def __call__(self, text: str) -> Verdict:
        """The function itself."""
        return self._function(text)

    def start(self) -> Hashable:
        """The state of the empty text."""
        return self._state(b"", "", b"")

    def advance(self, state: Any, data: bytes) -> Any:
        """Evaluate the function on the text with `data`, if that completes a character."""
        before = state.data if isinstance(state, _State) else state
        after = before + data
        try:
            text, pending = decode(after)
        except UnicodeDecodeError:
            return None
        if data and len(after) - len(pending) <= len(before) - len(decode(before)[1]):
            # No further character is complete: the verdict on those before stands.
            return self._state(after, text, pending)
        verdict = self._evaluate(self._function, text)
        if isinstance(verdict, bool):
            return self._state(after, text, pending) if verdict else None

        async def later() -> Hashable | None:
            return self._state(after, text, pending) if await verdict else None

        return later()

    def next_bytes(self, state: Any) -> range | None:
        """In a multi-byte character: the bytes that can continue it."""
        return continuing(state.data if isinstance(state, _State) else state)

    def accepts(self, state: Any) -> Verdict:
        """Whether the text may end: at the end of a character, and if `complete` accepts."""
        text, pending = decode(state.data if isinstance(state, _State) else state)
        if pending:
            return False
        return True if self._complete is None else self._evaluate(self._complete, text)

    def is_over(self, state: Any) -> Verdict:
        """With `complete`, what `accepts` says: a text that need not end is over here."""
        return False if self._complete is None else self.accepts(state)

    def _state(self, data: bytes, text: str, pending: bytes) -> Hashable:
        if self._future is None:
            return data
        future = self._future(text)
        try:
            hash(future)
        except TypeError as error:
            raise PotentialError(
                f"{self!r}: state= gave {future!r} for {show(data)}, which cannot be hashed: "
                "return a str, a number, a tuple or a frozenset"
            ) from error
        return _State(data, pending, future)

    def _evaluate(self, function: Callable[[str], Verdict], text: str) -> Verdict:
        if self._workers is not None:
            return self._evaluate_in_worker(function, text, self._workers)
        try:
            verdict = function(text)
        except Exception as error:
            return self._failed(error, text)
        if inspect.isawaitable(verdict):
            return self._later(verdict, text)
        return self._bool(verdict, text)

    async def _later(self, verdict: Awaitable[bool], text: str) -> bool:
        try:
            value = await verdict
        except Exception as error:
            return self._failed(error, text)
        return self._bool(value, text)

    async def _evaluate_in_worker(
        self, function: Callable[[str], Verdict], text: str, workers: int
    ) -> bool:
        from awrs_ppl.workers.workers import NoVerdict, check

        try:
            value = await check(function, text, workers=workers, time_limit=self._time_limit)
        except NoVerdict as error:
            # No verdict is not a rejection, whatever `on_error` says.
            raise PotentialError(
                f"{self!r} {error.why} on the text {show(text)}; {error.remedy}"
            ) from error
        except Exception as error:
            return self._failed(error, text)
        return self._bool(value, text)

    def _failed(self, error: Exception, text: str) -> bool:
        if self._on_error == "reject":
            return False
        raise PotentialError(
            f"{self!r} raised {type(error).__name__}: {error} on the text {show(text)}; "
            "fix it, or write @predicate(on_error='reject')"
        ) from error

    def _bool(self, verdict: Any, text: str) -> bool:
        if not isinstance(verdict, bool | np.bool_):
            raise PotentialError(
                f"{self!r} returned {verdict!r} on the text {show(text)}: "
                "it must return True or False"
            )
        return bool(verdict)


@overload
def predicate(
    function: Callable[[str], Verdict],
    /,
    *,
    complete: Callable[[str], Verdict] | None = None,
    state: Callable[[str], Hashable] | None = None,
    on_error: Literal["raise", "reject"] = "raise",
    workers: int | None = None,
    time_limit: float | None = None,
    cost: float | None = None,
) -> Predicate: ...
@overload
def predicate(
    function: None = None,
    /,
    *,
    complete: Callable[[str], Verdict] | None = None,
    state: Callable[[str], Hashable] | None = None,
    on_error: Literal["raise", "reject"] = "raise",
    workers: int | None = None,
    time_limit: float | None = None,
    cost: float | None = None,
) -> Callable[[Callable[[str], Verdict]], Predicate]: ...
def predicate(function: Any = None, /, **options: Any) -> Any:
    """Make a Boolean potential of `f(text) -> bool`: can a text with this prefix become allowed?

    `f` may be `async`. It must be prefix-closed: what it rejects it rejects however the text
    continues. `complete=g` adds a rule for whole texts; `state=h` says that a hashable `h(text)`
    is all the future depends on, so that texts with equal states share what is learned. If
    `f` raises, that is a `PotentialError`, or a rejection with `on_error="reject"`. What is learned
    holds for this code with these values of what it names: a list that grows makes it another.

    For slow functions: with `workers=n` the functions run in `n` other processes, which share
    no variables with this one, and several texts are checked at once. A check that takes more
    than `time_limit` seconds there, or crashes, is always a `PotentialError`.

    `cost` says how many rows of the language model one check is worth, and with it how many
    checks `AWRS` spends for less variance (as many as 1/sqrt(cost)). By default it is 1/1024,
    1/16 with `workers`, and 1 for an `async` function; give more for a slow one. Texts and their
    weights stay right whatever it is.

    >>> @predicate
    ... def no_letter_twice(text: str) -> bool:
    ...     return len(set(text)) == len(text)
    >>> no_letter_twice
    predicate(no_letter_twice)
    >>> import asyncio
    >>> asyncio.run(no_letter_twice.prefix("been".encode()))
    -inf
    """
    if function is None:
        return lambda f: Predicate(f, **options)
    return Predicate(function, **options)
