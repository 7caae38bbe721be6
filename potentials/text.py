"""Texts out of a list, and texts that contain another."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl._messages import listed, show
from awrs_ppl._recent import Recent
from awrs_ppl.constraints.arguments import Argument
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.tokens.text import decode
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["Contains", "OneOf"]

# Masks kept for each automaton and vocabulary.
MASKS = 64


def _listed(choices: tuple[str, ...]) -> str:
    return f"[{listed(choices, 3)}]"


class OneOf(BooleanPotential):
    """The texts of a list, and no others. A state knows only what can still follow.

    Raises `ValueError` for an empty list, and `TypeError` for what is no text.

    >>> import asyncio
    >>> answer = OneOf(["yes", "no", "not now"])
    >>> asyncio.run(answer.complete(b"no")), asyncio.run(answer.prefix(b"not ")),
    (0.0, 0.0)
    >>> answer.advance(answer.start(), b"maybe") is None
    True
    >>> answer
    OneOf(['no', 'not now', 'yes'])
    """

    arguments = (Argument("choices", _listed, lambda choices: f"{len(choices)} choices"),)
    searched = True

    def __init__(self, choices: Iterable[str | bytes]) -> None:
        if isinstance(choices, str | bytes):
            raise TypeError(f"OneOf got {choices!r}: give it a list of texts")
        try:
            choices = tuple(choices)
        except TypeError as error:
            raise TypeError(f"OneOf got {choices!r}: give it a list of texts") from error
        for choice in choices:
            if not isinstance(choice, str | bytes):
                raise TypeError(
                    f"OneOf got the choice {choice!r}: choices are texts; write str({choice!r}), "
                    "or draw it by ctx.sample(Categorical([...])) where it is no text"
                )
        choices = tuple(_as_str(choice, "OneOf") for choice in choices)
        if not choices:
            raise ValueError("OneOf got no choices: give it at least one text")
        super().__init__()
        self._words = _words(choices)
        self.mask = self._words.mask

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts, sorted, each once."""
        return self._words.choices

    def start(self) -> int:
        """The state of the empty text."""
        return self._words.root

    def advance(self, state: Any, data: bytes) -> int | None:
        """The state after `data`; `None` if no choice has this prefix."""
        return self._words.advance(state, data)

    def accepts(self, state: Any) -> bool:
        """Whether the text is a choice."""
        return self._words.nodes[state][0]

    def is_over(self, state: Any) -> bool:
        """What `accepts` says: a text that need not end is over here."""
        return self.accepts(state)


class Contains(BooleanPotential):
    """The texts that contain `text`. A state knows how much of it stands at the end.

    No prefix is rejected but bytes that are no UTF-8: a text can end only once `text`
    is in it. Raises `TypeError` if it is no text.

    >>> import asyncio
    >>> fox = Contains("fox")
    >>> asyncio.run(fox.prefix(b"the f")), asyncio.run(fox.complete(b"the f"))
    (0.0, -inf)
    >>> fox.advance(fox.start(), b"the fo") == fox.advance(fox.start(), b"fofo")
    True
    """

    arguments = (Argument("text", shown=show),)
    searched = True

    def __init__(self, text: str | bytes) -> None:
        if not isinstance(text, str | bytes):
            raise TypeError(f"Contains got {text!r}: give it a text, a str or bytes")
        super().__init__()
        self.text = text = _as_str(text, "Contains")
        self._data = _encode(text, "Contains")
        self._falls = _falls(self._data)
        self.words = (self._data,) if self._data else ()
        self.mask = _mask_of_utf8

    def start(self) -> tuple[int, bytes]:
        """How many bytes of `text` stand at the end, and the bytes of an unfinished character."""
        return 0, b""

    def advance(self, state: Any, data: bytes) -> tuple[int, bytes] | None:
        """The state after `data`; `None` if it is no UTF-8."""
        matched, pending = state
        try:
            pending = decode(pending + data)[1]
        except UnicodeDecodeError:
            return None
        for byte in data:
            if matched == len(self._data):
                break
            while matched and self._data[matched] != byte:
                matched = self._falls[matched]
            matched += self._data[matched] == byte
        return matched, pending

    def accepts(self, state: Any) -> bool:
        """Whether `text` was in it, and the last character is whole."""
        return state[0] == len(self._data) and not state[1]


def _as_str(text: str | bytes, name: str) -> str:
    try:
        return text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} got {text!r}, which is not UTF-8") from error


def _encode(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} got {text!r}, which has half of a surrogate pair") from error


@lru_cache(maxsize=256)
def _falls(data: bytes) -> tuple[int, ...]:
    """For each length, the length of the longest border of the prefix of that length.

    Knuth, Morris and Pratt, "Fast pattern matching in strings", 1977.
    """
    falls, matched = [0, 0], 0
    for byte in data[1:]:
        while matched and data[matched] != byte:
            matched = falls[matched]
        matched += data[matched] == byte
        falls.append(matched)
    return tuple(falls)


class _Masks:
    """The masks of an automaton that were used last."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Vocabulary, Recent] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Masks, ()  # they are of vocabularies of this process

    def get(self, state: Any, vocabulary: Vocabulary, find: Any) -> np.ndarray:
        known = self._known.get(vocabulary)
        if known is None:
            known = self._known[vocabulary] = Recent(MASKS)
        mask = known.get(state)
        if mask is None:
            mask = np.zeros(vocabulary.size, dtype=bool)
            mask[find(state, vocabulary)] = True
            mask.flags.writeable = False
            known.put(state, mask)
        return mask


_utf8 = _Masks()


def _mask_of_utf8(state: tuple[int, bytes], vocabulary: Vocabulary) -> np.ndarray:
    return _utf8.get(state[1], vocabulary, _readable)


def _readable(pending: bytes, vocabulary: Vocabulary) -> list[int]:
    found = []
    for i in vocabulary.text_ids.tolist():
        try:
            decode(pending + vocabulary.tokens[i])
        except UnicodeDecodeError:
            continue
        found.append(i)
    return found


class _Words:
    """The least automaton of some texts: a node is whether a text ends, and what follows.

    Built from the sorted texts as by Daciuk, Mihov, Watson and Watson, "Incremental construction
    of minimal acyclic finite-state automata", 2000.
    """

    def __init__(self, choices: tuple[str, ...]) -> None:
        self.choices = tuple(sorted(set(choices)))
        self.nodes: list[tuple[bool, dict[int, int]]] = []
        self._numbers: dict[tuple[bool, tuple[tuple[int, int], ...]], int] = {}
        self._masks = _Masks()
        # The nodes along the last text, which may still get more branches.
        path: list[tuple[bool, dict[int, int]]] = [(False, {})]
        last = b""
        for data in sorted(_encode(choice, "OneOf") for choice in self.choices):
            common = next(
                (i for i, (a, b) in enumerate(zip(last, data, strict=False)) if a != b),
                min(len(last), len(data)),
            )
            self._close(path, last, common)
            path += [(False, {}) for _ in data[common:]]
            path[-1] = (True, path[-1][1])
            last = data
        self._close(path, last, 0)
        self.root = self._number(path[0])

    def _close(self, path: list[tuple[bool, dict[int, int]]], last: bytes, keep: int) -> None:
        while len(path) > keep + 1:
            node = path.pop()
            path[-1][1][last[len(path) - 1]] = self._number(node)

    def _number(self, node: tuple[bool, dict[int, int]]) -> int:
        same = (node[0], tuple(node[1].items()))
        if same not in self._numbers:
            self._numbers[same] = len(self.nodes)
            self.nodes.append(node)
        return self._numbers[same]

    def advance(self, state: int, data: bytes) -> int | None:
        for byte in data:
            after = self.nodes[state][1].get(byte)
            if after is None:
                return None
            state = after
        return state

    def mask(self, state: int, vocabulary: Vocabulary) -> np.ndarray:
        return self._masks.get(state, vocabulary, self._tokens)

    def _tokens(self, state: int, vocabulary: Vocabulary) -> list[int]:
        prefix_index = vocabulary.prefix_index
        found: list[int] = []
        waiting = [(state, b"")]
        while waiting:
            node, data = waiting.pop()
            for byte, after in self.nodes[node][1].items():
                longer = data + bytes([byte])
                first, last = prefix_index.range(longer)
                if first < last:
                    found += prefix_index.spelling(longer)
                    waiting.append((after, longer))
        return found


@lru_cache(maxsize=256)
def _words(choices: tuple[str, ...]) -> _Words:
    return _Words(choices)
