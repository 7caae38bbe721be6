"""Which tokens may follow a statement on the way, for a whole vocabulary.

What follows depends on the place and on the last token alone, but for what SQLite says of the
text: a mask is found once for all texts that stand at equal places, with the tokens over which
SQLite decides beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from awrs_ppl.potentials._sql_grammar import KEYWORDS
from awrs_ppl.potentials._sql_pieces import Node, Pieces, pieces_of
from awrs_ppl.potentials._sql_reader import BOUNDARIES, Place, Reader, Rejected
from awrs_ppl.potentials._sql_scan import Scanned, Scanner, incomplete
from awrs_ppl.potentials._sql_tokens import BLANKS, BLOB, QUOTES, WORD, is_closed, shape
from awrs_ppl.vocabulary import Vocabulary

__all__ = ["Masks"]

# Bytes of masks kept for one database.
MASK_BYTES = 2**26
_QUOTES = frozenset(bytes([quote]) for quote in QUOTES)
# A word that is no keyword, function or blob, and begins none.
_OTHER = b"zqzq"

# The roles of names that are looked up.
_KNOWN = ("COLUMN", "TABLE")

# What SQLite has to say something about: the text without its last token, or whole; what closes it.
_Event = tuple[bool, bytes]


@dataclass(slots=True)
class _Found:
    """What may follow a place: tokens allowed, those that depend on what SQLite says of the text
    so far, and those that depend on what they say themselves."""

    mask: np.ndarray
    depend: dict[frozenset[_Event], list[int]] = field(default_factory=dict)
    each: list[int] = field(default_factory=list)

    def add(self, ids: Iterable[int] | np.ndarray, events: frozenset[_Event] | None) -> None:
        if events is None:
            self.each.extend(ids)
        elif events:
            self.depend.setdefault(events, []).extend(ids)
        else:
            self.mask[ids if isinstance(ids, np.ndarray) else list(ids)] = True


class Masks:
    """The masks of a scanner."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        functions = scanner.reader.names.functions
        special = {*(word.encode() for word in KEYWORDS), *functions, b"main", b"x"}
        self._walk = _Walk(scanner.reader, frozenset(special))
        self._known: OrderedDict[tuple[Pieces, Place, bytes], _Found] = OrderedDict()
        self._cost = 0

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

    def _find(self, pieces: Pieces, size: int, state: Scanned) -> _Found:
        last = self._walk.simple(state.place, state.last)
        key = (pieces, state.place, last)
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found
        found = self._known[key] = _Found(np.zeros(size, dtype=bool))
        if self._walk.is_name(state.place, last):
            close = QUOTES[last[0]]
            found.mask[pieces.without(close)] = True
            found.each = pieces.having(close)
        else:
            self._walk.collect(pieces.root, _Way(state.place, last), found)
        found.mask.flags.writeable = False
        self._cost += size
        while self._cost > MASK_BYTES and len(self._known) > 1:
            self._cost -= self._known.popitem(last=False)[1].mask.nbytes
        return found

    def _passes(self, state: Scanned, events: frozenset[_Event]) -> bool:
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


class _Way(NamedTuple):
    """Where tokens with the same first bytes lead: a place, and the last token there; what was
    read of them; what SQLite has to say (None: it has to be asked about each)."""

    place: Place
    last: bytes
    said: bytes = b""
    events: frozenset[_Event] | None = frozenset()


class _Walk:
    """Reads all tokens of a vocabulary at once. Words in `special` count each by itself."""

    def __init__(self, reader: Reader, special: frozenset[bytes]) -> None:
        self._reader = reader
        self._special = special
        self._begins_special = lru_cache(maxsize=4096)(
            lambda prefix: any(word.startswith(prefix) for word in special)
        )

    def is_name(self, place: Place, last: bytes) -> bool:
        """Whether the last token is a name in quotes that has not ended, and is looked up."""
        role = self._reader.options(place).role
        return last[:1] in _QUOTES and role in _KNOWN and not is_closed(last)

    def simple(self, place: Place, last: bytes) -> bytes:
        """A last token that goes on like another one, simpler or equal."""
        if not last:
            return last
        role = self._reader.options(place).role
        if last[0] in QUOTES:
            # The names of functions and tables count.
            return last if role in _KNOWN and is_closed(last) else shape(last)
        if not WORD.match(last) or BLOB.match(last):
            return shape(last)
        word = last.lower()
        if role is None or self._reader.known(place, role) is not None:
            return word
        return word if self._begins_special(word) else _OTHER

    def collect(self, node: Node, way: _Way, found: _Found) -> None:
        """Add the tokens of a node, and those below it."""
        found.add(node.ids, way.events)
        last = way.last
        if last and _is_inside(last):
            self._inside(node, way, found)
        elif not last or (WORD.match(last) and not BLOB.match(last)):
            self._words(node, way, found)
        else:
            self._each(node.numbers, node.number_tails, way, found)
            if last[:1].isdigit() or BLOB.match(last):
                self._each(node.words, node.tails, way, found)
            elif (after := self._behind(way)) is not None:
                self._words(node, after, found, numbers=False)
        for piece, below in node.others.items():
            if (after := self._read(way, piece)) is not None:
                self.collect(below, after, found)

    def _inside(self, node: Node, way: _Way, found: _Found) -> None:
        """In a string or comment: all words are alike, unless it is a name."""
        if self.is_name(way.place, way.last):
            self._each(node.words, node.tails, way, found)
            self._each(node.numbers, node.number_tails, way, found)
            return
        for words, tails in ((node.words, node.tails), (node.numbers, node.number_tails)):
            for ids in words.values():
                found.add(ids, way.events)
            for tail, group in tails.items():
                if (after := self._read(way, _OTHER + tail)) is not None:
                    for ids in group.values():
                        found.add(ids, after.events)

    def _words(self, node: Node, way: _Way, found: _Found, numbers: bool = True) -> None:
        options = self._reader.options(way.place)
        known = self._reader.known(way.place, options.role)
        if known is None:
            self._any_word(node, way, found)
        else:
            names = options.keywords | known
            if "BLOB" in options.others:
                names |= {b"x"}
            self._known_words(node, way, found, names)
        if not way.last and numbers:
            self._each(node.numbers, node.number_tails, way, found)

    def _any_word(self, node: Node, way: _Way, found: _Found) -> None:
        found.add(node.every_word, way.events)
        going_on = [(node.numbers, node.number_tails)] if way.last else []
        for words, _ in going_on:
            for ids in words.values():
                found.add(ids, way.events)
        for tails in [node.tails, *(tails for _, tails in going_on)]:
            for tail, group in tails.items():
                after = self._read(way, _OTHER + tail)
                for word, ids in group.items():
                    special = way.last + word in self._special
                    own = self._read(way, word + tail) if special else after
                    if own is not None:
                        found.add(ids, own.events)

    def _known_words(self, node: Node, way: _Way, found: _Found, names: frozenset[bytes]) -> None:
        given = len(way.last)
        going_on = [node.words, node.numbers] if given else [node.words]
        ways = {
            name[given:end]
            for name in names
            if name.startswith(way.last)
            for end in range(given + 1, len(name) + 1)
        }
        for words in going_on:
            for word in ways & words.keys():
                # A boundary lets SQLite judge the text before it.
                bound = (way.last + word).decode("utf-8", "replace") in BOUNDARIES
                after = self._read(way, word) if bound else way
                if after is not None:
                    found.add(words[word], after.events)
        for tails in [node.tails, node.number_tails] if given else [node.tails]:
            for tail, group in tails.items():
                for word, ids in group.items():
                    if way.last + word in names:
                        after = self._read(way, word + tail)
                        if after is not None:
                            found.add(ids, after.events)

    def _each(
        self,
        words: dict[bytes, list[int]],
        tails: dict[bytes, dict[bytes, list[int]]],
        way: _Way,
        found: _Found,
    ) -> None:
        for tail, group in ((b"", words), *tails.items()):
            for word, ids in group.items():
                if (after := self._read(way, word + tail)) is not None:
                    found.add(ids, after.events)

    def _behind(self, way: _Way) -> _Way | None:
        """Where the last token has ended."""
        place, last, said, _ = way
        seen: list[tuple[int, bytes]] = []
        try:
            place = self._reader.take(place, last, 0, b"", lambda _, at, c: seen.append((at, c)))
        except Rejected:
            return None
        return _Way(place, b"", said, self._joined(way, said, seen))

    def _read(self, way: _Way, data: bytes) -> _Way | None:
        place, last, said, _ = way
        seen: list[tuple[int, bytes]] = []
        try:
            place, at = self._reader.read(
                place, last + data, lambda _, at, close: seen.append((at, close))
            )
        except Rejected:
            return None
        return _Way(place, (last + data)[at:], said + data, self._joined(way, said + data, seen))

    def _joined(
        self, way: _Way, said: bytes, seen: list[tuple[int, bytes]]
    ) -> frozenset[_Event] | None:
        events, start = way.events, len(way.said) - len(way.last)
        for at, close in seen:
            at += start
            if events is None or said[: max(at, 0)].strip(BLANKS):
                return None
            events |= {(at >= 0, close)}
        return events


def _is_inside(last: bytes) -> bool:
    """Whether a token is a string or comment that has not ended."""
    if last[0] in QUOTES:
        return not is_closed(last)
    return last.startswith((b"--", b"/*")) and not (len(last) > 3 and last.endswith(b"*/"))
