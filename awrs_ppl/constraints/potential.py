"""Potentials: what is allowed and what is better.

Every potential is a genlm-control `Potential`, so ours work in its samplers and its own work
in our products. A `BooleanPotential` is over bytes and incremental.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from genlm.control.potential.base import Potential
from genlm.control.typing import Atomic

from awrs_ppl._concurrency import resolve
from awrs_ppl._messages import show
from awrs_ppl._values import count_of
from awrs_ppl.constraints.arguments import Argument
from awrs_ppl.errors import PotentialError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from awrs_ppl.constraints.product import Product

__all__ = ["BooleanPotential", "State"]

State: TypeAlias = Hashable

BYTES = list(range(256))
BYTE_TABLES = Potential.build_tables(BYTES, token_type=Atomic(int))


class Multiplicative(Potential):
    """Potentials whose `*` builds one of our products."""

    def __mul__(self, other: Potential) -> Product:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not isinstance(other, Potential):
            return NotImplemented
        from awrs_ppl.constraints.product import product

        return product(self, other)

    def __deepcopy__(self, memo: Any) -> Multiplicative:
        return self  # a value: it does not change

    # What it was made of. Where a class declares this its objects are values: equal ones say the
    # same of every text.
    arguments: ClassVar[tuple[Argument, ...] | None] = None
    # The name before the arguments, where it is not that of the class.
    called: ClassVar[str] = ""

    @property
    def key(self) -> Hashable:
        """Equal for potentials that say the same of every text. By default: this very object."""
        kind = type(self)
        if kind.arguments is None:
            return self
        keys = [it.key(getattr(self, it.attribute)) for it in kind.arguments if it.key is not None]
        return (kind, *keys)

    @property
    def fingerprint(self) -> str:
        """What a replay compares: the kind of potential, and of its arguments no details."""
        arguments = type(self).arguments
        if arguments is None:
            return type(self).__qualname__
        return self._written(it.written(self, it.compared) for it in arguments)

    def __repr__(self) -> str:
        return self._written(it.written(self, it.shown) for it in type(self).arguments or ())

    def _written(self, arguments: Iterable[str | None]) -> str:
        name = type(self).called or type(self).__name__
        return f"{name}({', '.join(it for it in arguments if it is not None)})"

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Multiplicative):
            return self is other
        key = self.key
        return key is not self and key == other.key

    def __hash__(self) -> int:
        return hash(type(self))  # the key of a function changes with the values that it names


class BooleanPotential(Multiplicative):
    """A set of allowed texts and of their prefixes, read step by step over bytes.

    A subclass gives `start`, `advance` and `accepts`; the last two may be `async`. It must hold
    that `advance(advance(s, a), b) == advance(s, a + b)`, and that with a text each of its prefixes
    is allowed. States are immutable and hashable, and equal states have equal
    futures. With `mask`, all next tokens are known at once, and none has to be checked.

    As a genlm-control potential its vocabulary is the 256 bytes and its weights are 0 and -inf.

    >>> class NoZ(BooleanPotential):
    ...     def start(self):
    ...         return ()
    ...     def advance(self, state, data):
    ...         return None if b"z" in data else state
    ...     def accepts(self, state):
    ...         return True
    >>> import asyncio
    >>> asyncio.run(NoZ().complete(b"jazz"))
    -inf
    """

    def __init__(self) -> None:
        super().__init__(BYTES, tables=BYTE_TABLES)

    @abstractmethod
    def start(self) -> State:
        """The state of the empty text."""

    @abstractmethod
    def advance(self, state: Any, data: bytes) -> State | Awaitable[State | None] | None:
        """The state after `data`; `None` if no allowed text has this prefix."""

    @abstractmethod
    def accepts(self, state: Any) -> bool | Awaitable[bool]:
        """Whether the text may end here."""

    def next_bytes(self, state: Any) -> range | None:
        """The bytes that can continue the text, where they are known without a check; else `None`.

        Tokens whose first byte is another then need no check. By default nothing is known.
        """
        return None

    # How many candidates are checked at once; more than 1 for checks that wait, `async` or in
    # worker processes. Verdicts that are not needed are dropped, so that results do not depend
    # on it.
    speculation: int = 1

    # A subclass with masks has here a method, or an attribute that its `__init__` sets:
    # `mask(state, vocabulary) -> ndarray[bool]` of shape `[vocabulary.size]`, which may be more
    # or less than `len(vocabulary.tokens)`. It must say of every text token what `advance` says;
    # of other ids it does not matter. Ends are not in it: `accepts` decides them. It is called
    # for each context again, so what takes long is kept, and what is kept is not written to.
    mask: Any = None

    async def prefix(self, context: Sequence[int] | bytes) -> float:
        """0 if an allowed text begins with these bytes, else -inf."""
        return -math.inf if await self._reached(context) is None else 0.0

    async def complete(self, context: Sequence[int] | bytes) -> float:
        """0 if these bytes are an allowed text, else -inf."""
        state = await self._reached(context)
        if state is None:
            return -math.inf
        return 0.0 if await resolve(self.accepts(state)) else -math.inf

    async def _reached(self, context: Sequence[int] | bytes) -> State | None:
        return await resolve(self.advance(self.start(), bytes(context)))


def check_workers(
    name: str, workers: int | None, time_limit: float | None, functions: Sequence[Any]
) -> None:
    """Raise `ValueError` if functions cannot be called so in worker processes."""
    if workers is not None and count_of(workers, least=1) is None:
        raise ValueError(f"{name} got workers={workers!r}: give a number of processes")
    if time_limit is not None and not (isinstance(time_limit, int | float) and time_limit > 0):
        raise ValueError(f"{name} got time_limit={time_limit!r}: give a number of seconds")
    if time_limit is not None and workers is None:
        raise ValueError(
            f"{name} got time_limit={time_limit!r} without workers: only a check in a "
            "process of its own can be ended, so add workers=1 or more"
        )
    if workers is not None and any(map(is_async, functions)):
        raise ValueError(
            f"{name} got workers={workers!r} and an async function: that waits here, in "
            "the event loop, so leave out workers"
        )


def is_async(function: Any) -> bool:
    """Whether a function must be awaited, as far as is known before it is called."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004
    )


def checked_weight(weight: Any, potential: Potential, text: bytes) -> float:
    """A log-weight as a float; `PotentialError` on NaN and +inf."""
    try:
        weight = float(weight)
    except (TypeError, ValueError):
        weight = repr(weight)
    if not isinstance(weight, float) or math.isnan(weight) or weight == math.inf:
        raise PotentialError(
            f"{potential!r} gave the log-weight {weight} to {show(text)}: "
            "a log-weight must be a number or -inf"
        )
    return weight
