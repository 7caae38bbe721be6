"""The tokens of a vocabulary in byte order, where those with a common prefix are a range."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["PrefixIndex", "boundaries"]


_WITHIN = 65_536  # tokens whose prefixes are kept


class PrefixIndex:
    """Text tokens in lexicographic order of their bytes.

    `ids[r]` is the id of the token of rank `r`; `ranks[i]` the rank of token `i`, or -1.

    >>> index = PrefixIndex([b"b", b"ab", b"a", b"<eos>", b"ba", b"a"], [0, 1, 2, 4, 5])
    >>> index.ids[slice(*index.range(b"a"))].tolist()
    [2, 5, 1]
    >>> index.within(b"ab")
    (2, 5, 1)
    """

    def __init__(self, tokens: Sequence[bytes], text_ids: Sequence[int]) -> None:
        order = sorted(sorted(text_ids), key=lambda i: bytes(tokens[i]))  # equal ones by their ids
        self.tokens = [bytes(tokens[i]) for i in order]
        self.ids = np.array(order, dtype=np.int32)
        self.ranks = np.full(len(tokens), -1, dtype=np.int32)
        self._within: dict[bytes, tuple[int, ...]] = {}
        self.ranks[self.ids] = np.arange(len(order), dtype=np.int32)

    def range(self, prefix: bytes) -> tuple[int, int]:
        """The ranks, first and past the last, of the tokens with this prefix."""
        first = bisect_left(self.tokens, prefix)
        # The least text above all with the prefix: its last byte below 255 is raised by one.
        stem = prefix.rstrip(b"\xff")
        if not stem:
            return first, len(self.tokens)
        above = stem[:-1] + bytes([stem[-1] + 1])
        return first, bisect_left(self.tokens, above, first)

    def outside(self, first_bytes: range) -> list[tuple[int, int]]:
        """The ranks of the tokens whose first byte is none of these, as ranges.

        >>> PrefixIndex([b"a", b"b", b"c"], [0, 1, 2]).outside(range(ord("b"), ord("c")))
        [(0, 1), (2, 3)]
        """
        first = bisect_left(self.tokens, bytes([first_bytes.start]))
        last = len(self.tokens)
        if first_bytes.stop < 256:
            last = bisect_left(self.tokens, bytes([first_bytes.stop]))
        return [ranks for ranks in ((0, first), (last, len(self.tokens))) if ranks[0] < ranks[1]]

    def within(self, token: bytes) -> tuple[int, ...]:
        """The ids of all tokens that are prefixes of `token`: shorter ones, and its equals."""
        found = self._within.get(token)
        if found is None:
            if len(self._within) >= _WITHIN:
                self._within.clear()
            lengths = range(1, len(token) + 1)
            found = tuple(i for length in lengths for i in self.spelling(token[:length]))
            self._within[token] = found
        return found

    def spelling(self, data: bytes) -> Iterator[int]:
        """The ids of the tokens with just these bytes. (A tokenizer may have several.)"""
        rank = bisect_left(self.tokens, data)
        while rank < len(self.tokens) and self.tokens[rank] == data:
            yield int(self.ids[rank])
            rank += 1


def boundaries(data: bytes) -> Iterator[int]:
    """The lengths of the prefixes of `data` that are worth a check, shortest first: those that end
    before the first byte of a character. In a character a text predicate waits.

    >>> list(boundaries("né!".encode()))
    [1, 3]
    """
    return (i for i in range(1, len(data)) if data[i] & 0xC0 != 0x80)
