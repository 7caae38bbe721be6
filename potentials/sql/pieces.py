"""A vocabulary by the pieces that its tokens are made of: words, blanks, single bytes."""

from __future__ import annotations

import re
from codecs import utf_8_decode
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl.potentials.sql.tokens import BLANKS, WORD
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["Ids", "Node", "Pieces", "pieces_of"]

_PIECE = re.compile(rb"[\w$\x80-\xff]+|[ \t\r\n\f]+|.", re.DOTALL)
_IN_NUMBERS = re.compile(rb"[0-9a-f]+|[ex][0-9a-f]*")
# From so many on tokens are kept as a mask.
_MANY = 200

Ids = list[int] | np.ndarray
Words = dict[bytes, list[int]]

_GOING_ON = frozenset(b"0123456789$")


class Node:
    """The tokens behind some pieces, by what follows there, in lower case.

    `ids` are those that end there; `words` those that end with one word more, which can begin a
    name, `numbers` those with one that can only continue one. `tails` and `number_tails` have, by
    all that follows such a word, the words and tokens, `others` the nodes behind other pieces.
    """

    __slots__ = (
        *("every_word", "ids", "inside_numbers", "number_tails", "numbers", "others", "parted"),
        *("size", "tails", "words"),
    )

    def __init__(self, size: int) -> None:
        self.size = size
        self.ids: list[int] = []
        self.words: Words = {}
        self.numbers: Words = {}
        self.tails: dict[bytes, Words] = {}
        self.number_tails: dict[bytes, Words] = {}
        self.others: dict[bytes, Node] = {}
        # The tokens of `words` as a mask, where they are many; what `part` gave.
        self.every_word: np.ndarray | None = None
        self.inside_numbers: tuple[Words, dict[bytes, Words]] | None = None
        self.parted: dict[bytes, tuple[Ids, Words]] = {}

    def add(self, token: bytes, i: int) -> None:
        if not token:
            self.ids.append(i)
            return
        match = _PIECE.match(token)
        assert match is not None
        piece, rest = match[0], token[match.end() :]
        if piece[0] in BLANKS:  # all alike, but that a line ends a comment
            piece = b"\n" if b"\n" in piece else b" "
        if WORD.match(piece):
            words, tails = self.words, self.tails
        elif piece[0] in _GOING_ON:
            words, tails = self.numbers, self.number_tails
        else:
            self.others.setdefault(piece, Node(self.size)).add(rest, i)
            return
        if rest:
            words = tails.setdefault(rest, {})
        words.setdefault(piece, []).append(i)

    def finish(self) -> None:
        """Make what is derived, when all tokens are there."""
        if len(self.words) > _MANY:
            self.every_word = np.zeros(self.size, dtype=bool)
            self.every_word[[i for ids in self.words.values() for i in ids]] = True
        for below in self.others.values():
            below.finish()

    def in_numbers(self) -> tuple[Words, dict[bytes, Words]]:
        """Those of `words` and `tails` that may continue a number or blob."""
        if self.inside_numbers is None:
            self.inside_numbers = (
                _in_numbers(self.words),
                {tail: _in_numbers(words) for tail, words in self.tails.items()},
            )
        return self.inside_numbers

    def part(self, close: bytes) -> tuple[Ids, Words]:
        """The tokens here and below without a byte from here on, as a list or, where they are
        many, a mask; by what follows here the tokens with it."""
        found = self.parted.get(close)
        if found is None:
            ids: list[int] = []
            having: Words = {}
            for rest, i in self._rests():
                if close in rest:
                    having.setdefault(rest, []).append(i)
                else:
                    ids.append(i)
            without: Ids = ids
            if len(ids) > _MANY:
                without = np.zeros(self.size, dtype=bool)
                without[ids] = True
            found = self.parted[close] = without, having
        return found

    def _rests(self) -> Iterator[tuple[bytes, int]]:
        for i in self.ids:
            yield b"", i
        for words in (self.words, self.numbers):
            yield from ((word, i) for word, ids in words.items() for i in ids)
        for tails in (self.tails, self.number_tails):
            for tail, words in tails.items():
                yield from ((word + tail, i) for word, ids in words.items() for i in ids)
        for piece, below in self.others.items():
            yield from ((piece + rest, i) for rest, i in below._rests())


def _in_numbers(words: Words) -> Words:
    return {word: ids for word, ids in words.items() if _IN_NUMBERS.fullmatch(word)}


class Pieces:
    """The tokens of a vocabulary that are text, apart from those that no text has.

    Those in `continuing` begin within a multi-byte character, and are not in the tree.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.root = Node(vocabulary.size)
        self.continuing: list[int] = []
        for i in vocabulary.text_ids.tolist():
            token = vocabulary.tokens[i].lower()
            if not token.isascii() and not _may_begin(token):
                if 0x80 <= token[0] < 0xC0:
                    self.continuing.append(i)
            elif b"\0" not in token:
                self.root.add(token, i)
        self.root.finish()


def _may_begin(token: bytes) -> bool:
    try:
        utf_8_decode(token, "strict", False)
    except UnicodeDecodeError:
        return False
    return True


_pieces: WeakKeyDictionary[Vocabulary, Pieces] = WeakKeyDictionary()


def pieces_of(vocabulary: Vocabulary) -> Pieces:
    """The pieces of a vocabulary, made once."""
    pieces = _pieces.get(vocabulary)
    if pieces is None:
        pieces = _pieces[vocabulary] = Pieces(vocabulary)
    return pieces
