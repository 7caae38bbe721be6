"""Undecided UTF-8: tokens that end in a multi-byte character.

A refinement. A constraint over text cannot judge such a token before the character is whole, so
it accepts it, and its verdict is still to come: it *waits*. A proposal draws it by its weight
times a guess of that verdict, the *twist*, which the next draw undoes. Without this file the
token would be drawn by its whole weight: unbiased, and of more variance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from awrs_ppl.tokens.text import is_in_character

if TYPE_CHECKING:
    from awrs_ppl.constraints.verdict_cache import StateVerdicts
    from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["Undecided"]


class Undecided:
    """What is undecided at one context. `uses_twists`: what follows a draw looks at its twist.

    `log_twist` is the logarithm of the twist that the character has in which the text ends; None
    where it ends between characters.
    """

    __slots__ = ("_known", "log_twist", "uses_twists")

    def __init__(self, known: Iterable[StateVerdicts]) -> None:
        self._known = known
        self.uses_twists = True
        self.log_twist: float | None = None

    def enter(
        self, next_bytes: range | None, twist: float, known: StateVerdicts, vocabulary: Vocabulary
    ) -> None:
        """Come to a state with these next bytes, if they are known, by a draw of this twist."""
        if is_in_character(next_bytes):
            self.log_twist = twist
        if next_bytes is not None and not known.journal:
            known.restrict_first_bytes(next_bytes, vocabulary)

    def note(self, token: int, next_bytes: range | None, known: StateVerdicts) -> None:
        """Note that a token is about to be accepted, after which these bytes come."""
        # Others may have learned meanwhile that it is a prefix of an allowed token.
        if token not in known.accepted and is_in_character(next_bytes):
            known.wait(token)

    def waiting(self) -> list[int]:
        """The tokens that wait; none without twists. (What is a prefix of an allowed token is
        not among them: it has an allowed continuation.)"""
        return [t for known in self._known for t in known.waiting] if self.uses_twists else []

    def is_waiting(self, outcome: int) -> bool:
        """Whether an outcome is one of them."""
        return self.uses_twists and any(outcome in known.waiting for known in self._known)
