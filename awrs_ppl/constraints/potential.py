"""Potentials: what is allowed and what is better.

Every potential is a genlm-control `Potential`, so ours work in its samplers and its own work
in our products. A `BooleanPotential` is over bytes and incremental.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from awrs_ppl._concurrency import resolve
from awrs_ppl._genlm import Atomic, Potential
from awrs_ppl.constraints.arguments import MadeOf
from awrs_ppl.constraints.no_potential import not_a_potential

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from awrs_ppl.constraints.product import Product

__all__ = ["BooleanPotential", "State"]

State: TypeAlias = Hashable

BYTES = list(range(256))
BYTE_TABLES = Potential.build_tables(BYTES, token_type=Atomic(int))


class Multiplicative(MadeOf, Potential):
    """Potentials whose `*` builds one of our products, and which are values: see `MadeOf`."""

    def __mul__(self, other: Potential) -> Product:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not isinstance(other, Potential):
            raise not_a_potential(other)
        from awrs_ppl.constraints.product import product

        return product(self, other)

    def __rmul__(self, other: Any) -> Product:
        raise not_a_potential(other)

    def __deepcopy__(self, memo: Any) -> Multiplicative:
        return self  # a value: it does not change


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

    def is_over(self, state: Any) -> bool | Awaitable[bool]:
        """Whether a text that need not end, by `ctx.generate(..., ends=False)`, is over here.

        It is where one factor says so and all accept. By default never: where a constraint has
        whole texts, as a pattern or a list has, it is what `accepts` says.
        """
        return False

    def next_bytes(self, state: Any) -> range | None:
        """The bytes that can continue the text, where they are known without a check; else `None`.

        Tokens whose first byte is another then need no check. By default nothing is known.
        """
        return None

    # How many candidates are checked at once; more than 1 for checks that wait, `async` or in
    # worker processes. Verdicts that are not needed are dropped, so that results do not depend
    # on it.
    speculation: int = 1

    # Rows of the language model that one check is worth: what `AWRS` spends on checks, for less
    # variance, follows from it. It is declared, and never measured, so that a seed fixes the
    # result. A check of a plain function takes tens of microseconds, a row tens of milliseconds
    # on a processor and one or two in a batch on an accelerator: the default is in between.
    cost: float = 1 / 1024

    # Whether a search for completions (`completion.py`) reads this potential: thousands of texts
    # that nobody drew are given to it, so a step must be a matter of microseconds, and it must not
    # call a user's function. `words` are tried there: texts that the end may depend on.
    searched: bool = False
    words: tuple[bytes, ...] = ()

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
