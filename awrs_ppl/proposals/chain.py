"""Completions as chains of tokens, and how likely a text takes all of them in time.

A part of the pressure to end (`pressure.py`), which says what it is for.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl._recent import Recent
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["LONGEST", "Chain", "Values", "chain_of", "ending_with"]

LONGEST = 24  # of the tokens that spell a completion, in bytes
# What a hazard is taken for before it was seen, and for how many contexts that counts.
_HAZARD, _COUNTS = 0.5, 0.01
_MOST_CHAINS, _MOST_HAZARDS = 1024, 16_384  # kept


class Values:
    """V of completions, with so many tokens left after the next, by the hazards so far."""

    def __init__(
        self, hazards: dict[Hashable, tuple[float, float]], keys: Hashable, left: int, ended: int
    ) -> None:
        self._hazards, self._keys, self._left, self._ended = hazards, keys, left, ended
        self._tables: dict[bytes, list[float]] = {}
        self._noted: list[tuple[bytes, float]] = []

    def of(self, chain: Chain, place: int) -> float:
        """V at a place of a chain; 1 at its end, -1, and 0 where it cannot be spelled."""
        if place < 0:
            return 1.0
        places = [place]
        while places[-1] < len(chain.text):
            if chain.counts[places[-1]] == math.inf:
                return 0.0
            places.append(chain.next[places[-1]])
        after = [1.0] * self._left
        if self._ended:
            after = self._table(b"", after)
        for at in reversed(places[:-1]):
            after = self._table(chain.text[at:], after)
        return after[-1]

    def _table(self, text: bytes, after: list[float]) -> list[float]:
        """V by tokens left, 0 to all, of a completion whose next step leads to these."""
        table = self._tables.get(text)
        if table is None:
            total, count = self._hazards.get((self._keys, text), (0.0, 0.0))
            hazard = (total + _HAZARD * _COUNTS) / (count + _COUNTS)
            table = [0.0]
            for value in after[:-1]:
                table.append(hazard * value + (1.0 - hazard) * table[-1])
            self._tables[text] = table
        return table

    def note(self, text: bytes, hazard: float) -> None:
        """Note what the tokens weighed that lead on, of all that is allowed."""
        self._noted.append((text, hazard))

    def learn(self, hazards: dict[Hashable, tuple[float, float]]) -> None:
        """Take what was noted into the means, for the next steps."""
        if len(hazards) + len(self._noted) > _MOST_HAZARDS:
            hazards.clear()
        for text, hazard in self._noted:
            total, count = hazards.get((self._keys, text), (0.0, 0.0))
            hazards[self._keys, text] = total + hazard, count + 1.0


@dataclass(frozen=True, slots=True)
class Chain:
    """A completion, and at each of its places the least number of tokens that spell the rest, and
    where the first of these ends."""

    text: bytes
    counts: tuple[float, ...]
    next: tuple[int, ...]


_chains: WeakKeyDictionary[Vocabulary, Recent] = WeakKeyDictionary()
_endings: WeakKeyDictionary[Vocabulary, Recent] = WeakKeyDictionary()


def chain_of(vocabulary: Vocabulary, text: bytes) -> Chain:
    """The chain of a completion, of as few tokens as can be."""
    known = _chains.setdefault(vocabulary, Recent(_MOST_CHAINS))
    chain: Chain | None = known.get(text)
    if chain is None:
        counts, after = [0.0], [len(text)]
        for at in reversed(range(len(text))):
            ids = vocabulary.prefix_index.within(text[at : at + LONGEST])
            lengths = {len(vocabulary.tokens[token]) for token in ids}
            # counts[-1] is that of the next byte. Of equally many the longest first.
            best = min(((counts[-n], -n) for n in lengths), default=(math.inf, -1))
            counts.append(best[0] + 1)
            after.append(at - best[1])
        chain = Chain(text, tuple(reversed(counts)), tuple(reversed(after)))
        known.put(text, chain)
    return chain


def ending_with(vocabulary: Vocabulary, data: bytes) -> np.ndarray:
    """The tokens that end with some bytes."""
    known = _endings.setdefault(vocabulary, Recent(_MOST_CHAINS))
    found: np.ndarray | None = known.get(data)
    if found is None:
        ids = ending_with(vocabulary, data[1:]) if len(data) > 1 else vocabulary.text_ids
        keep = [vocabulary.tokens[i].endswith(data) for i in ids.tolist()]
        found = ids[np.array(keep, bool)]
        known.put(data, found)
    return found
