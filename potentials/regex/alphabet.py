"""Which characters the matches of a pattern can have."""

from __future__ import annotations

import sys
from functools import cache, lru_cache

import regex

from awrs_ppl.potentials.regex.tree import Characters, Flags, Fuzzy, Group, Node, Pattern, walk

__all__ = ["is_ascii"]

# A letter, an escaped sign, or a set of ranges between ASCII characters.
_PLAINLY_ASCII = regex.compile(r"[a-zA-Z0-9 ]|\\[!-/:-@\[-`{-~]|\[[a-zA-Z0-9 ,.:;!?_+-]+\]")
_WIDENING = regex.IGNORECASE | regex.FULLCASE | regex.V1
# How groups begin that set no flags.
_PLAIN = regex.compile(r"\((?:\?(?::|>|\||P?<\w+>))?")


def is_ascii(pattern: Pattern, flags: int) -> bool:
    """Whether every match is of ASCII characters alone; of doubtful ones it says no."""
    return all(_has_ascii(node, flags) for node in walk(pattern.tree))


def _has_ascii(node: Node, flags: int) -> bool:
    if isinstance(node, Characters):
        return _matches_only_ascii(node.text, flags)
    if isinstance(node, Group):
        return _PLAIN.fullmatch(node.head) is not None
    return not isinstance(node, Flags | Fuzzy)


@lru_cache(maxsize=1024)
def _matches_only_ascii(text: str, flags: int) -> bool:
    # With IGNORECASE "k" is the Kelvin sign, too.
    if _PLAINLY_ASCII.fullmatch(text) and not flags & _WIDENING:
        return True
    try:
        return regex.compile(text, flags).search(_others()) is None
    except regex.error:
        return False


@cache
def _others() -> str:
    """All characters beyond ASCII: `regex` says which of them a set has."""
    # Without the surrogates, which no text has.
    return "".join(map(chr, [*range(0x80, 0xD800), *range(0xE000, sys.maxunicode + 1)]))
