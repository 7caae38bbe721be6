"""Checks ahead: outcomes that are checked at once because one check is slow.

A refinement, for potentials with `speculation` above 1 (worker processes, async checks). What
was checked ahead and not needed is not learned, so that a result does not depend on how much was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from awrs_ppl._concurrency import together

if TYPE_CHECKING:
    from awrs_ppl.constraints.next_verdicts import Answer, NextVerdicts

__all__ = ["ChecksAhead"]


class ChecksAhead:
    """What checks at one context gave and was not needed yet."""

    def __init__(self) -> None:
        self._answers: dict[int, Answer] = {}

    async def fetch(self, verdicts: NextVerdicts, outcomes: Iterable[int]) -> None:
        """Check all tokens at once whose verdict depends on a check."""
        size = verdicts.vocabulary.size
        wanted = [
            outcome
            for outcome in dict.fromkeys(outcomes)
            if outcome not in self._answers and outcome < size and verdicts.verdict(outcome) is None
        ]
        answers = await together(map(verdicts.check_token, wanted))
        self._answers.update(zip(wanted, answers, strict=True))

    def take(self, outcome: int) -> Answer | None:
        """What the check of an outcome gave, if it was fetched."""
        return self._answers.pop(outcome, None)

    def drop(self) -> None:
        """Forget what was not needed."""
        self._answers.clear()
