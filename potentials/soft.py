"""A potential from a function that gives a log-weight to a text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from awrs_ppl._concurrency import resolve
from awrs_ppl._messages import show
from awrs_ppl.constraints.arguments import check_workers, function, hidden
from awrs_ppl.constraints.function_key import function_key
from awrs_ppl.constraints.genlm_factor import checked_weight
from awrs_ppl.constraints.potential import BYTE_TABLES, BYTES, Multiplicative
from awrs_ppl.errors import PotentialError
from awrs_ppl.tokens.text import decode

__all__ = ["Soft"]

Weight = float | Awaitable[float]


class Soft(Multiplicative):
    """Texts weighed by `f(text)`, a log-weight; as a critic, or as a factor of a product.

    `prefix=g` gives a log-weight to partial texts: as a critic it steers, provisionally.
    Without it only whole texts are weighed. Both may be `async`, and are then evaluated for all
    particles at once; so are slow functions with `workers=n`, in `n` other processes, which share
    no variables with this one. One that takes more than `time_limit` seconds there, or crashes,
    is a `PotentialError`, and so are NaN and +inf.

    >>> import asyncio
    >>> asyncio.run(Soft(lambda text: -len(text)).complete(b"four"))
    -4.0
    """

    arguments = (function("_f"), hidden("_prefix", function_key))

    def __init__(
        self,
        f: Callable[[str], Weight],
        *,
        prefix: Callable[[str], Weight] | None = None,
        workers: int | None = None,
        time_limit: float | None = None,
    ) -> None:
        for given in (f, prefix):
            if given is not None and not callable(given):
                raise TypeError(f"Soft got {given!r}: it needs a function from text to a number")
        check_workers("Soft", workers, time_limit, (f, prefix))
        super().__init__(BYTES, tables=BYTE_TABLES)
        self._f = f
        self._prefix = prefix
        self._workers = workers
        self._time_limit = time_limit

    def is_terminal_only(self) -> bool:
        """Whether only whole texts are weighed."""
        return self._prefix is None

    async def prefix(self, context: Sequence[int] | bytes) -> float:
        """The log-weight of a prefix; an unfinished UTF-8 character is not read yet."""
        return 0.0 if self._prefix is None else await self._weigh(self._prefix, bytes(context))

    async def complete(self, context: Sequence[int] | bytes) -> float:
        """The log-weight of a whole text; -inf for bytes that are no UTF-8."""
        return await self._weigh(self._f, bytes(context), whole=True)

    async def _weigh(self, f: Callable[[str], Any], data: bytes, *, whole: bool = False) -> float:
        try:
            text, pending = decode(data)
        except UnicodeDecodeError:
            return float("-inf")
        if whole and pending:
            return float("-inf")
        try:
            weight = await self._evaluate(f, text)
        except PotentialError:
            raise
        except Exception as error:
            raise PotentialError(
                f"{self!r} raised {type(error).__name__}: {error} on the text {show(data)}"
            ) from error
        return checked_weight(weight, self, data)

    async def _evaluate(self, f: Callable[[str], Any], text: str) -> Any:
        if self._workers is None:
            return await resolve(f(text))
        from awrs_ppl.workers.workers import NoVerdict, check

        try:
            return await check(f, text, workers=self._workers, time_limit=self._time_limit)
        except NoVerdict as error:
            raise PotentialError(
                f"{self!r} {error.why} on the text {show(text)}; {error.remedy}"
            ) from error
