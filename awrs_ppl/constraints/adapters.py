"""Potentials over bytes, characters or tokens, evaluated on one token of the LM at a time.

Boolean factors (ours, and genlm-control's that are known to be Boolean) give a verdict and a
state; those that weigh are in `weighing`.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from genlm.backend.tokenization import Token
from genlm.control import BoolCFG, BoolFSA, CanonicalTokenization
from genlm.control.potential.autobatch import AutoBatchedPotential
from genlm.control.potential.base import Potential
from genlm.control.potential.built_in.json import FullValidatorJsonSchema, ParserPotential
from genlm.control.potential.coerce import Coerced
from genlm.control.potential.product import Product as GenlmProduct

from awrs_ppl._concurrency import resolve
from awrs_ppl._messages import quoted, show
from awrs_ppl.constraints.potential import (
    BooleanPotential,
    Multiplicative,
    State,
    checked_weight,
)
from awrs_ppl.errors import PotentialError, VocabularyError
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = [
    "ByteFactor",
    "Factor",
    "Text",
    "TokenFactor",
    "boolean",
    "is_boolean",
    "is_in_character",
]


@dataclass(frozen=True, slots=True)
class Text:
    """A partial text: its bytes and the tokens that spell it."""

    data: bytes = b""
    tokens: tuple[int, ...] = ()

    def then(self, token: int, data: bytes) -> Text:
        """The text one token later."""
        return Text(self.data + data, (*self.tokens, token))


class Factor(Protocol):
    """A Boolean factor of a product, evaluated on tokens."""

    @property
    def potential(self) -> Potential:
        """The factor itself."""
        ...

    @property
    def key(self) -> Hashable:
        """Equal for factors that say the same of every text."""
        ...

    async def begin(self, text: Text) -> State | None:
        """The state after a whole text; None if no allowed text has this prefix."""
        ...

    async def advance(self, state: Any, token: int | None, data: bytes) -> State | None:
        """The state after a token, or after bytes that are no token; None if not allowed."""
        ...

    async def accepts(self, state: Any) -> bool:
        """Whether a text may end here."""
        ...

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray | None:
        """All verdicts at once, shape `[vocabulary.size]`, or None if the factor has no mask."""
        ...

    def next_bytes(self, state: Any) -> range | None:
        """The bytes that can continue the text, where they are known; else None."""
        ...


@dataclass(frozen=True, slots=True)
class ByteFactor:
    """A `BooleanPotential`, lifted: it sees the bytes of each token."""

    potential: BooleanPotential

    @property
    def key(self) -> Hashable:
        return self.potential.key

    async def begin(self, text: Text) -> State | None:
        return await resolve(self.potential.advance(self.potential.start(), text.data))

    async def advance(self, state: Any, token: int | None, data: bytes) -> State | None:
        return await resolve(self.potential.advance(state, data))

    async def accepts(self, state: Any) -> bool:
        verdict = await resolve(self.potential.accepts(state))
        if verdict is not True and verdict is not False and not isinstance(verdict, np.bool_):
            raise PotentialError(f"{self.potential!r}.accepts returned {verdict!r}, not a bool")
        return bool(verdict)

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray | None:
        if self.potential.mask is None:
            return None
        mask = np.asarray(self.potential.mask(state, vocabulary))
        if mask.dtype != np.bool_ or mask.shape != (vocabulary.size,):
            raise PotentialError(
                f"{self.potential!r}.mask returned an array of dtype {mask.dtype} and shape "
                f"{mask.shape}: it must be bool, of shape ({vocabulary.size},)"
            )
        return mask

    def next_bytes(self, state: Any) -> range | None:
        return self.potential.next_bytes(state)


@dataclass(frozen=True, slots=True)
class TokenFactor:
    """A Boolean potential of genlm-control; its state is the text so far, as its own context."""

    potential: Potential
    alphabet: Alphabet

    @property
    def key(self) -> Hashable:
        # One of ours is equal to another as of now, and a key is of when it was made.
        return self.potential.key if isinstance(self.potential, Multiplicative) else self.potential

    async def begin(self, text: Text) -> State | None:
        return await self._reach(text)

    async def advance(self, state: Text, token: int | None, data: bytes) -> State | None:
        # Without a token the potential is not over tokens, or the text would not be spelled.
        return await self._reach(
            state.then(token, data) if token is not None else Text(state.data + data, state.tokens)
        )

    async def _reach(self, text: Text) -> State | None:
        context = self.alphabet.context(text)
        if context is None or not await self._holds(self.potential.prefix(context), text):
            return None
        return text

    async def accepts(self, state: Text) -> bool:
        if not self.alphabet.is_whole(state):
            return False
        context = self.alphabet.context(state)
        return context is not None and await self._holds(self.potential.complete(context), state)

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray | None:
        return None

    def next_bytes(self, state: Text) -> range | None:
        return None if self.alphabet.is_whole(state) else continuing(state.data)

    async def _holds(self, weight: Any, text: Text) -> bool:
        value = checked_weight(await weight, self.potential, text.data)
        if value not in (0.0, -math.inf):
            raise PotentialError(
                f"{self.potential!r} was taken for a Boolean potential, but gave {show(text.data)} "
                f"the log-weight {value}: leave out `boolean(...)` to have it weigh"
            )
        return value == 0.0


class Alphabet:
    """What a potential of genlm-control reads: bytes, characters or tokens of the LM."""

    def __init__(self, potential: Potential, vocabulary: Vocabulary | None) -> None:
        self.symbols = potential.lookup
        self.tokens = vocabulary
        first = potential.vocab[0]
        if isinstance(first, Token):
            self.kind = "tokens"
        elif isinstance(first, int):
            self.kind = "bytes"
        elif isinstance(first, str) and all(len(symbol) == 1 for symbol in potential.vocab):
            self.kind = "characters"
        elif isinstance(first, bytes) and all(len(symbol) == 1 for symbol in potential.vocab):
            self.kind = "single bytes"
        else:
            raise VocabularyError(
                f"{potential!r} is over {potential.token_type!r}: a potential in a product is "
                "over bytes (ints below 256), characters, or the language model's tokens; "
                "use its `coerce` first"
            )

    def context(self, text: Text) -> Any | None:
        """The text as the potential reads it; None if it cannot be spelled."""
        if self.kind == "tokens":
            assert self.tokens is not None
            symbols: list[Any] = [Token(i, self.tokens.tokens[i]) for i in text.tokens]
        elif self.kind == "bytes":
            symbols = list(text.data)
        elif self.kind == "single bytes":
            symbols = [bytes([byte]) for byte in text.data]
        else:
            # A character that is not finished yet is not read yet.
            try:
                symbols = list(decode(text.data)[0])
            except UnicodeDecodeError:
                return None
        return symbols if all(symbol in self.symbols for symbol in symbols) else None

    def is_whole(self, text: Text) -> bool:
        """Whether the text ends at the end of a symbol."""
        if self.kind != "characters":
            return True
        try:
            return decode(text.data)[1] == b""
        except UnicodeDecodeError:
            return False


def decode(data: bytes) -> tuple[str, bytes]:
    """The characters of `data`, and the bytes at its end of one that is not complete.

    Raises `UnicodeDecodeError` on bytes that no continuation makes valid UTF-8.

    >>> decode("né".encode()[:-1])
    ('n', b'\\xc3')
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    text = decoder.decode(data)
    pending = decoder.getstate()[0]
    # Python's decoder waits for a third byte here, but these would be surrogates.
    if pending[:1] == b"\xed" and pending[1:] >= b"\xa0":
        start = len(data) - len(pending)
        raise UnicodeDecodeError("utf-8", data, start, len(data), "a surrogate")
    return text, pending


# Where not every byte from 80 to BF can be the second: the character would be longer than it
# need be, a surrogate, or beyond Unicode.
_SECOND = {0xE0: (0xA0, 0xC0), 0xED: (0x80, 0xA0), 0xF0: (0x90, 0xC0), 0xF4: (0x80, 0x90)}


def continuing(data: bytes) -> range | None:
    """The bytes that may follow `data` if it ends in a multi-byte character, else None.

    >>> continuing("🙂".encode()[:2]) == range(0x80, 0xC0), continuing(b"n")
    (True, None)
    """
    pending = decode(data)[1]
    if not pending:
        return None
    return range(*_SECOND.get(pending[0] if len(pending) == 1 else 0, (0x80, 0xC0)))


def is_in_character(next_bytes: range | None) -> bool:
    """Whether these are next bytes in a multi-byte character, which is judged when it is whole."""
    return bool(next_bytes) and next_bytes[0] >= 0x80 and next_bytes[-1] < 0xC0


_BOOLEAN = (BoolFSA, BoolCFG, CanonicalTokenization, FullValidatorJsonSchema, ParserPotential)


def is_boolean(potential: Potential) -> bool:
    """Whether a potential only ever says 0 or -inf, as far as that is known.

    >>> is_boolean(BoolFSA.from_regex("a*"))
    True
    """
    if isinstance(potential, (BooleanPotential, *_BOOLEAN)):
        return True
    if isinstance(potential, AutoBatchedPotential | Coerced):
        return is_boolean(potential.potential)
    if isinstance(potential, GenlmProduct):
        return is_boolean(potential.p1) and is_boolean(potential.p2)
    return getattr(potential, "_awrs_ppl_boolean", False)


def boolean(potential: Potential) -> Potential:
    """Declare a potential of genlm-control Boolean: in a product it filters, token by token.

    Only needed for potentials of your own: those of genlm-control that are Boolean are known.
    Returns the same potential.

    >>> from genlm.control import BoolFSA
    >>> is_boolean(boolean(BoolFSA.from_regex("a+")))
    True
    """
    if not isinstance(potential, Potential):
        raise TypeError(f"boolean got {quoted(potential)}: it needs a potential of genlm-control")
    potential._awrs_ppl_boolean = True  # pyright: ignore[reportAttributeAccessIssue]
    return potential
