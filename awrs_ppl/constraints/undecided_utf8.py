"""Undecided UTF-8: tokens that end in a multi-byte character.

A refinement. A constraint over text cannot judge such a token before the character is whole, so
it accepts it, and its verdict is still to come: it *waits*. A proposal draws it by its weight
times a guess of that verdict, the *twist*, which the next draw undoes. Without this file the
token would be drawn by its whole weight: unbiased, and of more variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from awrs_ppl.constraints.next_verdicts import NextVerdicts
    from awrs_ppl.constraints.verdict_cache import StateVerdicts

__all__ = ["enter", "note"]

_WAITING = 80  # what an entry takes, in bytes, beside that among the accepted


def enter(verdicts: NextVerdicts, known: StateVerdicts, next_bytes: range, twist: float) -> None:
    """Come to a state with these next bytes by a draw of this twist."""
    if _is_in_character(next_bytes):
        verdicts.log_twist = twist
    if not known.journal:
        for ranks in verdicts.vocabulary.prefix_index.outside(next_bytes):
            known.reject_range(*ranks)


def note(known: StateVerdicts, token: int, next_bytes: range | None) -> None:
    """Note that a token is about to be accepted, after which these bytes come.

    What others have found to be a prefix of an allowed token does not wait: it has an allowed
    continuation.
    """
    if token not in known.accepted and _is_in_character(next_bytes):
        known.waiting[token] = None
        known.cost += _WAITING


def _is_in_character(next_bytes: range | None) -> bool:
    """Whether these are next bytes in a multi-byte character, which is judged when it is whole."""
    return bool(next_bytes) and next_bytes[0] >= 0x80 and next_bytes[-1] < 0xC0
