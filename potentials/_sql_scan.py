"""A statement read on the way: where in it something is said for good, and is it wrong.

A part that ends in a whole word is judged once every SELECT that is open there has all its
sources, since a source that follows may still bring a column that is missing: brackets are
closed behind the part, and if that is a statement then its names must be known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl.potentials._sql_terminals import BOUNDARIES
from awrs_ppl.vocabulary import Vocabulary

__all__ = ["START", "Scanned", "Scanner"]

_TOKEN = re.compile(
    rb"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|['"`\[].*"""
    rb"""|[\w.\x80-\xff]+|[ \t\r\n]+|.""",
    re.DOTALL,
)
_NO_WORD = re.compile(rb"[^\w.\x80-\xff]")
_BLANKS = b" \t\r\n"
# Bytes by which the word or string before them has ended, and is no name of a function.
_ENDING = frozenset(b" \t\r\n,);=<>!+-*/%|")
_ALONE = _ENDING | frozenset(b"(")
_BOUNDARIES = frozenset(word.encode() for word in BOUNDARIES)
_QUOTES = {b"'": ord("'"), b'"': ord('"'), b"`": ord("`"), b"[": ord("]")}
_CLOSES = frozenset(_QUOTES.values())

# What is open: a bracket, a SELECT whose sources are not all named, one whose sources are.
_BRACKET, _SELECT, _SETTLED = range(3)
_Stack = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scanned:
    """The text so far; what else is here follows from it."""

    text: bytes = b""
    # Where the last word or string begins, which may go on; what was open before it.
    open: int = field(default=0, compare=False)
    stack: _Stack = field(default=(_BRACKET,), compare=False)


START = Scanned()


class Scanner:
    """Reads statements of the grammar; `is_wrong` says if a part, its brackets closed, is a
    statement with an error that stays."""

    def __init__(self, is_wrong: Callable[[bytes], bool]) -> None:
        self._is_wrong = is_wrong

    def read(self, state: Scanned, data: bytes) -> Scanned | None:
        """The state after `data`; None if a part that is said for good is wrong."""
        text, old = state.text + data, len(state.text)
        at, stack = state.open, state.stack
        while at < len(text):
            match = _TOKEN.match(text, at)
            assert match is not None
            token, end = match[0].lower(), match.end()
            if at >= old and token[0] in _ENDING:
                closes = token in (b")", b";")
                if (closes or text[at - 1] not in _BLANKS) and self._fails(
                    text[:at], _settled(stack) if closes else stack
                ):
                    return None
            # A boundary counts as soon as it could be one; see `NEXT_ALIAS`.
            elif token in _BOUNDARIES and end > old and self._fails(text[:at], _settled(stack)):
                return None
            if end == len(text) and token[0] not in _ALONE:
                break
            stack = _after(token, stack)
            at = end
        return Scanned(text, at, stack)

    def mask(self, state: Scanned, vocabulary: Vocabulary, mask: np.ndarray) -> np.ndarray:
        """What `read` leaves of a mask of the grammar, shape `[vocabulary.size]`."""
        shapes = _shapes_of(vocabulary)
        last = state.text[state.open :]
        if quote := _open_quote(last):
            asked = mask & shapes.with_byte[quote]
        else:
            asked = mask & (shapes.other | shapes.boundary_end)
            if self.read(state, b" ") is None:
                mask = mask & ~shapes.blank_word
                asked &= mask
            else:
                asked |= mask & shapes.blank_boundary
        tokens = vocabulary.tokens
        refused = [i for i in np.flatnonzero(asked).tolist() if self.read(state, tokens[i]) is None]
        if refused:
            mask = mask.copy()
            mask[refused] = False
        return mask

    def _fails(self, part: bytes, stack: _Stack) -> bool:
        if _SELECT in stack or not part:
            return False
        return self._is_wrong(part.rstrip(_BLANKS) + b")" * (len(stack) - 1))


def _after(token: bytes, stack: _Stack) -> _Stack:
    if token == b"(":
        return (*stack, _BRACKET)
    if token == b")":
        return stack[:-1] or stack
    if token == b"select":
        return (*stack[:-1], _SELECT)
    return _settled(stack) if token in _BOUNDARIES else stack


def _settled(stack: _Stack) -> _Stack:
    return (*stack[:-1], _SETTLED) if stack[-1] == _SELECT else stack


def _open_quote(last: bytes) -> int | None:
    """The byte that would close the string that a text ends in; None outside of strings."""
    close = _QUOTES.get(last[:1])
    if close is None or (len(last) > 1 and last[-1] == close):
        return None
    return close


class _Shapes:
    """The tokens of a vocabulary, by what `read` has to ask about them; masks of its size."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.blank_word, self.blank_boundary, self.boundary_end, self.other = (
            np.zeros(vocabulary.size, dtype=bool) for _ in range(4)
        )
        self.with_byte = {close: np.zeros(vocabulary.size, dtype=bool) for close in _CLOSES}
        for i in vocabulary.text_ids.tolist():
            token = vocabulary.tokens[i].lower()
            for close in _CLOSES.intersection(token):
                self.with_byte[close][i] = True
            word = token.lstrip(_BLANKS)
            if _NO_WORD.search(word):
                self.other[i] = True
            elif word == token:
                self.boundary_end[i] = any(known.endswith(word) for known in _BOUNDARIES)
            else:
                self.blank_word[i] = True
                self.blank_boundary[i] = word in _BOUNDARIES


_shapes: WeakKeyDictionary[Vocabulary, _Shapes] = WeakKeyDictionary()


def _shapes_of(vocabulary: Vocabulary) -> _Shapes:
    shapes = _shapes.get(vocabulary)
    if shapes is None:
        shapes = _shapes[vocabulary] = _Shapes(vocabulary)
    return shapes
