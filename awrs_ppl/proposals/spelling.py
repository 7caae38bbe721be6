"""How few tokens spell some bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl._recent import Recent
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["LONGEST", "Spelling", "ending_with", "spelling_of"]

LONGEST = 24  # of the tokens that are looked at, in bytes
_MOST = 1024  # kept of each vocabulary


@dataclass(frozen=True, slots=True)
class Spelling:
    """Some bytes, and at each of their places the least number of tokens that spell the rest; inf
    where none do."""

    text: bytes
    counts: tuple[float, ...]

    def places(self, most: int) -> list[int]:
        """Where the first tokens of a shortest spelling begin, at most so many places."""
        found = [0]
        while len(found) < most and 0 < self.counts[found[-1]] < math.inf:
            wanted, at = self.counts[found[-1]] - 1, found[-1]
            after = range(at + 1, min(at + LONGEST, len(self.text)) + 1)
            found.append(max(place for place in after if self.counts[place] == wanted))
        return found


_spellings: WeakKeyDictionary[Vocabulary, Recent] = WeakKeyDictionary()
_endings: WeakKeyDictionary[Vocabulary, Recent] = WeakKeyDictionary()


def spelling_of(vocabulary: Vocabulary, text: bytes) -> Spelling:
    """The spelling of some bytes.

    >>> spelling_of(Vocabulary([b"a", b"b", b"ab"], ends=()), b"bab").counts
    (2.0, 1.0, 1.0, 0.0)
    """
    known = _spellings.setdefault(vocabulary, Recent(_MOST))
    found: Spelling | None = known.get(text)
    if found is None:
        counts = [0.0]  # the last is that of the next byte
        for at in reversed(range(len(text))):
            ids = vocabulary.prefix_index.within(text[at : at + LONGEST])
            lengths = {len(vocabulary.tokens[token]) for token in ids}
            counts.append(1.0 + min((counts[-length] for length in lengths), default=math.inf))
        found = Spelling(text, tuple(reversed(counts)))
        known.put(text, found)
    return found


def ending_with(vocabulary: Vocabulary, data: bytes) -> np.ndarray:
    """The tokens that end with some bytes.

    >>> ending_with(Vocabulary([b"a", b"b", b"ab"], ends=()), b"b")
    array([1, 2])
    """
    known = _endings.setdefault(vocabulary, Recent(_MOST))
    found: np.ndarray | None = known.get(data)
    if found is None:
        ids = ending_with(vocabulary, data[1:]) if len(data) > 1 else vocabulary.text_ids
        keep = [vocabulary.tokens[i].endswith(data) for i in ids.tolist()]
        found = ids[np.array(keep, bool)]
        known.put(data, found)
    return found
