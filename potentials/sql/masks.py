"""Which tokens may follow a partial statement, for a whole vocabulary.

What follows depends on the place and on the last token alone, but for what SQLite says of the
text: a mask is found once for all texts that stand at equal places, with the tokens over which
SQLite decides beside it.
"""

from __future__ import annotations

from itertools import count
from weakref import ref

import numpy as np

from awrs_ppl._recent import Recent
from awrs_ppl.potentials.sql.followers import Event, Found
from awrs_ppl.potentials.sql.pieces import Pieces, pieces_of
from awrs_ppl.potentials.sql.place import Rejected
from awrs_ppl.potentials.sql.scan import Scanned, Scanner, incomplete
from awrs_ppl.potentials.sql.walk import Walk, Way
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["Masks"]

# Bytes of masks kept, of all databases.
MASK_BYTES = 2**26

_ids = count()
# By the number of the masks, the pieces of the vocabulary, the place and the last token.
_recent = Recent(MASK_BYTES)


class Masks:
    """The masks of a scanner."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._walk = Walk(scanner.reader)
        self._id = next(_ids)

    def mask(self, state: Scanned, vocabulary: Vocabulary) -> np.ndarray:
        """Which tokens may follow, shape `[vocabulary.size]`; not to be written to."""
        pieces = pieces_of(vocabulary)
        if incomplete(state.text):
            mask = np.zeros(vocabulary.size, dtype=bool)
            return self._decide(state, vocabulary, mask, pieces.continuing)
        found = self._find(pieces, vocabulary.size, state)
        if not found.depend and not found.each:
            return found.mask
        mask = found.mask.copy()
        for events, ids in found.depend.items():
            if self._passes(state, events):
                mask[ids] = True
        return self._decide(state, vocabulary, mask, found.each)

    def _find(self, pieces: Pieces, size: int, state: Scanned) -> Found:
        last = self._walk.simple(state.place, state.last)
        # A key that does not keep alive the tokens of a vocabulary that is gone.
        key = (self._id, ref(pieces), state.place, last)
        found = _recent.get(key)
        if found is None:
            found = Found(np.zeros(size, dtype=bool))
            self._walk.collect(pieces.root, Way(state.place, last), found)
            found.finish()
            _recent.put(key, found, found.mask.nbytes)
        return found

    def _passes(self, state: Scanned, events: frozenset[Event]) -> bool:
        try:
            for whole, close in events:
                self._scanner.judge(state.text if whole else state.text[: state.open], close)
        except Rejected:
            return False
        return True

    def _decide(
        self, state: Scanned, vocabulary: Vocabulary, mask: np.ndarray, ids: list[int]
    ) -> np.ndarray:
        for i in ids:
            try:
                self._scanner.read(state, vocabulary.tokens[i])
            except Rejected:
                continue
            mask[i] = True
        return mask
