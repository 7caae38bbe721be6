"""Sets of characters as ranges of code points."""

from __future__ import annotations

from functools import lru_cache

import regex

__all__ = ["ANY", "LINE_ENDS", "SPACE", "WORD", "Ranges", "complement", "found", "one", "union"]

# In order, without overlaps.
Ranges = tuple[tuple[int, int], ...]

_LAST = 0x10FFFF
ANY: Ranges = ((0, _LAST),)
DIGITS: Ranges = ((48, 57),)
WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
SPACE: Ranges = (
    *((9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
    *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
LINE_ENDS: Ranges = ((10, 10), (13, 13), (0x2028, 0x2029))


def one(code: int) -> Ranges:
    """The set of one character."""
    return ((code, code),)


def union(*parts: Ranges) -> Ranges:
    """The characters of any part; the pairs need not be in order."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(pair for part in parts for pair in part):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def complement(ranges: Ranges) -> Ranges:
    """The characters that are not in the set."""
    gaps, at = [], 0
    for low, high in ranges:
        if low > at:
            gaps.append((at, low - 1))
        at = high + 1
    if at <= _LAST:
        gaps.append((at, _LAST))
    return tuple(gaps)


def intersection(one: Ranges, other: Ranges) -> Ranges:
    """The characters of both sets."""
    return complement(union(complement(one), complement(other)))


@lru_cache(maxsize=256)
def found(expression: str) -> Ranges:
    """The characters that an expression of the package `regex` matches."""
    return _found(expression, _characters())


@lru_cache(maxsize=1024)
def folded(ranges: Ranges) -> Ranges:
    """The set, with every character that differs from one of its own by case only."""
    return union(ranges, _found(f"(?i:{written(ranges)})", _cased())) if ranges else ranges


def written(ranges: Ranges) -> str:
    """The set for the package `regex`."""
    if not ranges:
        return "(?!)"
    code = r"\U{:08x}".format
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return code(ranges[0][0])
    return f"[{''.join(code(low) + '-' + code(high) for low, high in ranges)}]"


def _found(expression: str, characters: str) -> Ranges:
    pattern = regex.compile(f"(?:{expression})+")
    matches = (match[0] for match in pattern.finditer(characters))
    return union(tuple((ord(c), ord(c)) for match in matches for c in match))


@lru_cache(maxsize=1)
def _characters() -> str:
    # Without halves of surrogate pairs: no string that is checked has them.
    return "".join(map(chr, [*range(0xD800), *range(0xE000, _LAST + 1)]))


@lru_cache(maxsize=1)
def _cased() -> str:
    # regex folds by single characters; whatever that joins has an upper or a lower case.
    return "".join(c for c in _characters() if not c == c.lower() == c.upper() == c.casefold())
