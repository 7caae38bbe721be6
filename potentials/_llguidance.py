"""Languages compiled by llguidance, read byte by byte, with masks over a vocabulary.

llguidance reads tokens. So each of its tokenizers holds, behind the tokens of a vocabulary, the
256 bytes as tokens of their own: a matcher can then be anywhere in a text, also inside a token
or a character, and still say which tokens of the vocabulary may follow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count
from threading import Thread
from typing import Any
from weakref import WeakKeyDictionary, finalize

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from awrs_ppl._messages import show
from awrs_ppl._recent import Recent
from awrs_ppl.errors import PotentialError
from awrs_ppl.tokens.vocabulary import SINGLE_BYTES, Vocabulary

__all__ = ["Language"]

# Matchers kept, of all languages: one for each text that is read, of 20 to 50 kB each.
MATCHERS = 2048
# Bytes of masks kept, of all languages.
MASK_BYTES = 2**26
# How far back the matcher of an earlier text is looked for before a text is read from its start.
STEPS_BACK = 64

# Where only one text can follow, llguidance would allow only one of the ways to spell it.
_OPTIONS = '\n%llguidance {"no_forcing": true}'

# The defaults are too low: 50,000 items for a mask for a large grammar over 262,144 tokens, 2,000
# at one position for an object with more properties, and a million steps for many long terminals.
_LIMITS = LLParserLimits(
    step_max_items=2_000_000, max_items_in_row=100_000, initial_lexer_fuel=10_000_000
)

_tokenizers: WeakKeyDictionary[Vocabulary, LLTokenizer] = WeakKeyDictionary()


_ids = count()
# By the number of a reader and the text.
_matchers = Recent(MATCHERS)
_masks = Recent(MASK_BYTES)
# The numbers of readers that are gone. A matcher holds the tokenizer of its vocabulary, 40 MB for
# 49,152 tokens, so what is kept of these goes when the next reader is made: not at once, for they
# may go at any moment, while the mappings are being changed.
_gone: deque[int] = deque()


class Language:
    """The texts of a grammar in llguidance's variant of Lark. A state is the bytes read so far.

    `name` says what the grammar is in messages, `remedy` what to do when llguidance gives up.
    Raises `ValueError` if the grammar does not compile.

    >>> language = Language("start: /ab*/", name="a and bs")
    >>> language.advance(b"", b"abb"), language.advance(b"", b"b"), language.accepts(b"a")
    (b'abb', None, True)
    >>> language.mask(b"a", Vocabulary([b"bb", b"ba", b"<end>"], ends=[2])).tolist()
    [True, False, False]
    """

    def __init__(self, grammar: str, *, name: str, remedy: str = "") -> None:
        self.name = name
        self._grammar = grammar + _OPTIONS
        self._remedy = remedy
        self._readers: WeakKeyDictionary[Vocabulary, _Reader] = WeakKeyDictionary()
        self._latest = self._reader(SINGLE_BYTES)
        self.consumed = 0
        start = self._latest.start
        if start.is_error():
            raise ValueError(start.get_error().partition("\n<state>")[0])
        # A matcher that has read a byte has a text ahead of it; at the start that is not sure.
        self._is_empty = not start.is_accepting() and not self._latest.any_byte(start)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without what it keeps for the vocabularies of this process.
        made = partial(Language, name=self.name, remedy=self._remedy)
        return made, (self._grammar.removesuffix(_OPTIONS),)

    def advance(self, state: bytes, data: bytes) -> bytes | None:
        """The state after `data`; None if no text of the language has this prefix."""
        if not data and state:
            return state
        text = state + data
        return text if self._find(self._latest, text, state) is not None else None

    def accepts(self, state: bytes) -> bool:
        """Whether the text may end."""
        matcher = self._find(self._latest, state, state)
        return matcher is not None and matcher.is_accepting()

    def mask(self, state: bytes, vocabulary: Vocabulary) -> np.ndarray:
        """Which tokens may follow, shape `[vocabulary.size]`; not to be written to."""
        # `advance` uses the vocabulary of the latest mask, so that no text is read twice.
        reader = self._reader(vocabulary)
        if vocabulary is not SINGLE_BYTES:
            self._latest = reader
        mask = _masks.get((reader.id, state))
        if mask is None:
            matcher = self._find(reader, state, state)
            if matcher is None:
                mask = np.zeros(vocabulary.size, dtype=bool)
            else:
                mask = reader.mask(matcher)
                self._raise_errors(matcher, state)
            mask.flags.writeable = False
            _masks.put((reader.id, state), mask, mask.nbytes)
        return mask

    def _reader(self, vocabulary: Vocabulary) -> _Reader:
        reader = self._readers.get(vocabulary)
        if reader is None:
            reader = self._readers[vocabulary] = _Reader(self._grammar, vocabulary)
        return reader

    def _find(self, reader: _Reader, text: bytes, state: bytes) -> LLMatcher | None:
        """The matcher after `text`, by way of the one after `state`; it must not be changed."""
        if not text:
            return None if self._is_empty else reader.start
        found = _matchers.get((reader.id, text))
        if found is not None:
            return found
        known, before = reader.nearest(text, state)
        data = text[known:]
        # A matcher that fails stays failed, and one that stops takes no byte.
        if before.is_stopped():
            self._raise_errors(before, text)
            return None
        matcher = before.deep_copy()
        read = matcher.try_consume_tokens([reader.size + byte for byte in data])
        self.consumed += read
        self._raise_errors(matcher, text)
        if read < len(data):
            return None
        _matchers.put((reader.id, text), matcher)
        return matcher

    def _raise_errors(self, matcher: LLMatcher, text: bytes) -> None:
        if not matcher.is_error() and matcher.stop_reason() in ("NotStopped", "NoExtension"):
            return
        reason = matcher.get_error().partition("\n<state>")[0] or matcher.stop_reason()
        # A dead end, as in a rule without an end, is no failure.
        if reason != "NoExtensionBias":
            raise PotentialError(
                f"{self.name}: llguidance gave up after {show(text)}: {reason}{self._remedy}"
            )


class _Reader:
    """A language over one vocabulary: the matcher of the empty text, and how to read masks."""

    def __init__(self, grammar: str, vocabulary: Vocabulary) -> None:
        self.size = vocabulary.size
        while _gone:
            number = _gone.popleft()
            _matchers.forget(lambda key, number=number: key[0] == number)
            _masks.forget(lambda key, number=number: key[0] == number)
        self.start = _apart(
            lambda: LLMatcher(_tokenizer(vocabulary), grammar, log_level=0, limits=_LIMITS)
        )
        self.id = next(_ids)
        finalize(self, _gone.append, self.id)

    def nearest(self, text: bytes, state: bytes) -> tuple[int, LLMatcher]:
        """A prefix of `text` whose matcher is known: its length, and the matcher."""
        if state != text and (matcher := _matchers.get((self.id, state))):
            return len(state), matcher
        for known in range(len(text) - 1, max(len(text) - STEPS_BACK, 0), -1):
            if matcher := _matchers.get((self.id, text[:known])):
                return known, matcher
        return 0, self.start

    def mask(self, matcher: LLMatcher) -> np.ndarray:
        return self._bits(matcher)[: self.size]

    def any_byte(self, matcher: LLMatcher) -> bool:
        return bool(self._bits(matcher)[self.size : self.size + 256].any())

    def _bits(self, matcher: LLMatcher) -> np.ndarray:
        packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(packed, bitorder="little").view(np.bool_)


def _apart(make: Callable[[], LLMatcher]) -> LLMatcher:
    """Makes it in a thread: llguidance lets others run, but Ctrl-C only ends the wait for it."""
    made: Future[LLMatcher] = Future()

    def run() -> None:
        try:
            made.set_result(make())
        except BaseException as error:
            made.set_exception(error)

    Thread(target=run, name="llguidance", daemon=True).start()
    return made.result()


class _Tokens:
    """What llguidance needs of a tokenizer: tokens by their ids, and how to spell bytes."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        size = vocabulary.size
        # A token of no bytes is never in a mask: all that are not text have none.
        tokens = [b""] * size
        for i in vocabulary.text_ids.tolist():
            tokens[i] = vocabulary.tokens[i]
        end = b"\xff<end>"  # no text has this byte
        self.tokens = [*tokens, *(bytes([byte]) for byte in range(256)), end]
        self.eos_token_id = len(self.tokens) - 1
        self.special_token_ids = [self.eos_token_id]
        self._bytes_at = size

    def __call__(self, data: bytes) -> list[int]:
        return [self._bytes_at + byte for byte in bytes(data)]


def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    tokenizer = _tokenizers.get(vocabulary)
    if tokenizer is None:
        tokenizer = LLTokenizer(TokenizerWrapper(_Tokens(vocabulary)))
        _tokenizers[vocabulary] = tokenizer
    return tokenizer
