"""A vocabulary by the pieces that its tokens are made of: words, blanks, single bytes."""

from __future__ import annotations

import re
from codecs import utf_8_decode
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl.potentials._sql_tokens import WORD
from awrs_ppl.vocabulary import Vocabulary

__all__ = ["Node", "Pieces", "pieces_of"]

_PIECE = re.compile(rb"[\w$\x80-\xff]+|[ \t\r\n\f]+|.", re.DOTALL)
_MANY = 200
_GOING_ON = frozenset(b"0123456789$")


class Node:
    """The tokens behind some pieces, by what follows there, in lower case.

    `ids` are those that end there; `words` those that end with one word more, which can begin a
    name, `numbers` those with one that can only go on one. `tails` and `number_tails` have, by
    all that follows such a word, the words and tokens, `others` the nodes behind other pieces.
    """

    __slots__ = ("every_word", "ids", "number_tails", "numbers", "others", "tails", "words")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.words: dict[bytes, list[int]] = {}
        self.numbers: dict[bytes, list[int]] = {}
        self.tails: dict[bytes, dict[bytes, list[int]]] = {}
        self.number_tails: dict[bytes, dict[bytes, list[int]]] = {}
        self.others: dict[bytes, Node] = {}
        # The tokens of `words` as a mask, where they are many.
        self.every_word: np.ndarray | None = None

    def add(self, token: bytes, i: int) -> None:
        if not token:
            self.ids.append(i)
            return
        match = _PIECE.match(token)
        assert match is not None
        piece, rest = match[0], token[match.end() :]
        if WORD.match(piece):
            words, tails = self.words, self.tails
        elif piece[0] in _GOING_ON:
            words, tails = self.numbers, self.number_tails
        else:
            self.others.setdefault(piece, Node()).add(rest, i)
            return
        if rest:
            words = tails.setdefault(rest, {})
        words.setdefault(piece, []).append(i)

    def finish(self, size: int) -> None:
        """Make what is derived, when all tokens are there."""
        if len(self.words) > _MANY:
            self.every_word = np.zeros(size, dtype=bool)
            self.every_word[[i for ids in self.words.values() for i in ids]] = True
        for below in self.others.values():
            below.finish(size)


class Pieces:
    """The tokens of a vocabulary that are text, apart from those that no text has.

    Those in `continuing` begin inside a character, and are not in the tree.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.root = Node()
        self.continuing: list[int] = []
        self._texts: list[int] = []
        self._tokens = vocabulary.tokens
        for i in vocabulary.text_ids.tolist():
            token = vocabulary.tokens[i].lower()
            if not token.isascii() and not _may_begin(token):
                if 0x80 <= token[0] < 0xC0:
                    self.continuing.append(i)
            elif b"\0" not in token:
                self.root.add(token, i)
                self._texts.append(i)
        self.root.finish(vocabulary.size)
        self._having: dict[bytes, list[int]] = {}

    def having(self, byte: bytes) -> list[int]:
        """The tokens in the tree that have a byte."""
        if byte not in self._having:
            self._having[byte] = [i for i in self._texts if byte in self._tokens[i]]
        return self._having[byte]

    def without(self, byte: bytes) -> np.ndarray:
        """Those that do not."""
        return np.setdiff1d(self._texts, self.having(byte))


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
