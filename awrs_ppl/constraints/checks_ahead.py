"""Checks ahead: outcomes that are checked at once because one check is slow.

A refinement, for potentials with `speculation` above 1 (worker processes, async checks). What
was checked ahead and not needed is not learned, so that a result does not depend on how much was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from awrs_ppl._concurrency import together

__all__ = ["ChecksAhead"]

T = TypeVar("T")


class ChecksAhead(Generic[T]):
    """The verdicts at one context that were not needed yet; `speculation` are fetched at once."""

    __slots__ = ("_answers", "speculation")

    def __init__(self) -> None:
        self.speculation = 1
        self._answers: dict[int, T] = {}

    async def fetch(
        self,
        outcomes: Iterable[int],
        is_open: Callable[[int], bool],
        check: Callable[[int], Awaitable[T]],
    ) -> None:
        """Check all outcomes that are open at once, if `speculation` is above 1."""
        if self.speculation == 1:
            return
        wanted = [o for o in dict.fromkeys(outcomes) if o not in self._answers and is_open(o)]

        async def one(outcome: int) -> T:
            return await check(outcome)

        answers = await together(map(one, wanted))
        self._answers.update(zip(wanted, answers, strict=True))

    def take(self, outcome: int) -> T | None:
        """The verdict on an outcome, if it was fetched."""
        return self._answers.pop(outcome, None)

    def drop(self) -> None:
        """Forget what was not needed."""
        self._answers.clear()
