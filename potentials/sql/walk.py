"""All tokens of a vocabulary read at once, from one place of a statement."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from awrs_ppl.potentials.sql.followers import Event, Found
from awrs_ppl.potentials.sql.grammar import KEYWORDS
from awrs_ppl.potentials.sql.pieces import Node
from awrs_ppl.potentials.sql.place import Place, Rejected
from awrs_ppl.potentials.sql.reader import BOUNDARIES, Options, Reader
from awrs_ppl.potentials.sql.tokens import BLANKS, BLOB, QUOTES, WORD, is_closed, shape

__all__ = ["Walk", "Way"]

# The roles of names that are looked up.
_KNOWN = ("COLUMN", "TABLE")
# A word that is no keyword, function or blob, and begins none.
_OTHER = b"zqzq"
# Bytes that may make a token longer; words, numbers and blanks apart.
_LONGER = {b"-": b"->", b"->": b">", b"/": b"*", b"<": b"<=>", b">": b">=", b"=": b"="}
_LONGER |= {b"!": b"=", b"|": b"|"}

_Words = dict[bytes, list[int]]


class Way(NamedTuple):
    """Where tokens with the same first bytes lead: a place, and the last token there; what was
    read of them; what SQLite has to judge (None: each of them)."""

    place: Place
    last: bytes
    said: bytes = b""
    events: frozenset[Event] | None = frozenset()


class Walk:
    """Reads the tokens of a vocabulary by a reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        # Words that count each by itself, even where any may stand.
        keywords = (word.encode() for word in KEYWORDS)
        self._special = frozenset({*keywords, *reader.names.functions, b"main", b"x"})
        self._begins_special = lru_cache(maxsize=4096)(
            lambda prefix: any(word.startswith(prefix) for word in self._special)
        )
        self._ways = lru_cache(maxsize=512)(_ways)
        self._firsts = lru_cache(maxsize=4096)(_firsts)

    def simple(self, place: Place, last: bytes) -> bytes:
        """A last token that continues like this one, simpler or equal."""
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

    def collect(self, node: Node, way: Way, found: Found) -> None:
        """Add the tokens of a node, and those below it."""
        last = way.last
        if last and (close := _close(last)):
            self._inside(node, way, close, found)
            return
        found.add(node.ids, way.events)
        longer = _LONGER.get(last, b"")
        if not last:
            after = way
            self._words(node, way, found)
        else:
            after = self._behind(way)
            if WORD.match(last) and not BLOB.match(last):
                longer = b"'" if last == b"x" else b""
                self._words(node, way, found)
            elif last[0] in QUOTES:
                longer = last[:1]
                self._words(node, after, found)
            elif last[:1].isdigit() or BLOB.match(last) or last[:1] == b".":
                longer = b".+-'"
                self._each(node.numbers, node.number_tails, way, found)
                self._each(*node.in_numbers(), way, found)
                if last == b"." or last[-1:] == b"'":
                    self._words(node, after, found)
            else:
                self._words(node, after, found)
        before = way if last[:1].isspace() else after  # blanks continue a blank
        firsts = self._firsts(self._reader.options(after.place)) if after else b""
        for piece, below in node.others.items():
            if piece[0] in longer:
                self._continue(below, self._read(way, piece), found)
            elif piece[0] in BLANKS:
                if before is not None:
                    self._blank(below, before, piece, found)
            elif after is not None and piece[0] in firsts:
                self._continue(below, self._read(after, piece), found)

    def _continue(self, node: Node, way: Way | None, found: Found) -> None:
        if way is not None:
            self.collect(node, way, found)

    def _blank(self, node: Node, way: Way, piece: bytes, found: Found) -> None:
        behind = way._replace(last=b" ", said=way.said + piece)
        if node.words or node.numbers or node.tails or node.number_tails or node.others:
            self.collect(node, behind, found)
        else:
            found.add(node.ids, behind.events)

    def _inside(self, node: Node, way: Way, close: bytes, found: Found) -> None:
        """In a string or comment: only what may end it counts."""
        without, having = node.part(close)
        found.add(without, way.events)
        if not way.said and self._is_name(way):
            # That depends on what the name is, which is not known here.
            for ids in having.values():
                found.each.extend(ids)
            return
        whole = way.last[0] not in QUOTES or self._is_name(way)
        ends: dict[bytes, list[int]] = {}
        for rest, ids in having.items():
            ends.setdefault(rest if whole else rest[rest.index(close) :], []).extend(ids)
        for rest, ids in ends.items():
            if (after := self._read(way, rest)) is not None:
                found.add(ids, after.events)

    def _is_name(self, way: Way) -> bool:
        """Whether the last token is a name that is looked up."""
        return way.last[0] in QUOTES and self._reader.options(way.place).role in _KNOWN

    def _words(self, node: Node, way: Way | None, found: Found) -> None:
        """Words where a name or keyword may begin, or continues."""
        if way is None:
            return
        if not way.last:
            self._each(node.numbers, node.number_tails, way, found)
        options = self._reader.options(way.place)
        known = self._reader.known(way.place, options.role)
        if known is None:
            self._any_word(node, way, found)
        elif node.words or node.tails or (way.last and (node.numbers or node.number_tails)):
            self._known_words(node, way, found, options, known)

    def _any_word(self, node: Node, way: Way, found: Found) -> None:
        found.add_words(node, way.events)
        every = [node.tails]
        if way.last:
            every.append(node.number_tails)
            for ids in node.numbers.values():
                found.add(ids, way.events)
        for tails in every:
            for tail, group in tails.items():
                after = self._read(way, _OTHER + tail)
                for word, ids in group.items():
                    special = way.last + word in self._special
                    own = self._read(way, word + tail) if special else after
                    if own is not None:
                        found.add(ids, own.events)

    def _known_words(
        self, node: Node, way: Way, found: Found, options: Options, known: frozenset[bytes]
    ) -> None:
        ways, names = self._ways(options, known, way.last)
        groups = [(node.words, node.tails)]
        if way.last:
            groups.append((node.numbers, node.number_tails))
        for words, tails in groups:
            few, many = sorted((ways, words), key=len)
            for word in few:
                if word in many:
                    # A boundary lets SQLite judge the text before it.
                    bound = (way.last + word).decode("utf-8", "replace") in BOUNDARIES
                    after = self._read(way, word) if bound else way
                    if after is not None:
                        found.add(words[word], after.events)
            for tail, group in tails.items():
                for word, ids in group.items():
                    if way.last + word in names:
                        after = self._read(way, word + tail)
                        if after is not None:
                            found.add(ids, after.events)

    def _each(self, words: _Words, tails: dict[bytes, _Words], way: Way, found: Found) -> None:
        for tail, group in ((b"", words), *tails.items()):
            for word, ids in group.items():
                if (after := self._read(way, word + tail)) is not None:
                    found.add(ids, after.events)

    def _behind(self, way: Way) -> Way | None:
        """Where the last token has ended."""
        place, last, said, _ = way
        seen: list[tuple[int, bytes]] = []
        try:
            place = self._reader.take(
                place, last, 0, b"", lambda _, at, close: seen.append((at, close))
            )
        except Rejected:
            return None
        return Way(place, b"", said, self._joined(way, said, seen))

    def _read(self, way: Way, data: bytes) -> Way | None:
        place, last, said, _ = way
        seen: list[tuple[int, bytes]] = []
        try:
            place, at = self._reader.read(
                place, last + data, lambda _, at, close: seen.append((at, close))
            )
        except Rejected:
            return None
        return Way(place, (last + data)[at:], said + data, self._joined(way, said + data, seen))

    def _joined(
        self, way: Way, said: bytes, seen: list[tuple[int, bytes]]
    ) -> frozenset[Event] | None:
        events, start = way.events, len(way.said) - len(way.last)
        for at, close in seen:
            at += start
            if events is None or said[: max(at, 0)].strip(BLANKS):
                return None
            events |= {(at >= 0, close)}
        return events


def _ways(
    options: Options, known: frozenset[bytes], given: bytes
) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """How the names and keywords with the prefix `given` may continue, and all of these."""
    names = options.keywords | known
    if "BLOB" in options.others:
        names |= {b"x"}
    return (
        frozenset(
            name[len(given) : end]
            for name in names
            if name.startswith(given)
            for end in range(len(given) + 1, len(name) + 1)
        ),
        names,
    )


def _firsts(options: Options) -> bytes:
    """The bytes that tokens may begin with, apart from words, numbers and blanks."""
    found = {ord("-"), ord("/"), *(other.encode()[0] for other in options.others)}
    if options.role is not None or "STRING" in options.others:
        found.update(QUOTES)
    return bytes([*found, ord(".")])


def _close(last: bytes) -> bytes:
    """The last byte of a string or comment that has not ended; none outside of both."""
    if last[0] in QUOTES:
        return b"" if is_closed(last) else QUOTES[last[0]]
    if last.startswith(b"--"):
        return b"\n"
    is_open = last.startswith(b"/*") and not (len(last) > 3 and last.endswith(b"*/"))
    return b"/" if is_open else b""
