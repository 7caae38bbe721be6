"""Potentials of genlm-control in our products, over bytes, characters or tokens.

A refinement that a reader of our own potentials can skip. Those that are known to be Boolean filter
token by token (`TokenFactor`); the others weigh (`weighing`). Both read texts by an `Alphabet`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from awrs_ppl._genlm import (
    AutoBatchedPotential,
    BoolCFG,
    BoolFSA,
    CanonicalTokenization,
    Coerced,
    FullValidatorJsonSchema,
    ParserPotential,
    Potential,
    Token,
)
from awrs_ppl._genlm import Product as GenlmProduct
from awrs_ppl._messages import listed, quoted, show
from awrs_ppl.constraints.arguments import require_cost
from awrs_ppl.constraints.potential import BooleanPotential, Multiplicative, State
from awrs_ppl.errors import PotentialError, VocabularyError
from awrs_ppl.tokens.text import Text, continuing, decode
from awrs_ppl.tokens.vocabulary import Vocabulary

# Of a check by a potential that declares no cost: it reads the whole text again, and may wait.
_COST = 1 / 16

__all__ = ["Alphabet", "TokenFactor", "boolean", "checked_weight", "common_alphabet", "is_boolean"]


@dataclass(frozen=True, slots=True)
class TokenFactor:
    """A Boolean potential of genlm-control; its state is the text so far, as its own context."""

    potential: Potential
    alphabet: Alphabet

    @property
    def key(self) -> Hashable:
        # One of ours is equal to another as of now, and a key is of when it was made.
        return self.potential.key if isinstance(self.potential, Multiplicative) else self.potential

    @property
    def cost(self) -> float:
        return require_cost(getattr(self.potential, "cost", _COST), self.potential)

    async def begin(self, text: Text) -> State | None:
        return await self._reach(text)

    async def advance(self, state: Any, token: int | None, data: bytes) -> State | None:
        # Without a token the potential is not over tokens, or the text would not be spelled.
        return await self._reach(
            state.then(token, data) if token is not None else Text(state.data + data, state.tokens)
        )

    async def _reach(self, text: Text) -> State | None:
        context = self.alphabet.context(text)
        if context is None or not await self._holds(self.potential.prefix(context), text):
            return None
        return text

    async def accepts(self, state: Any) -> bool:
        if not self.alphabet.is_whole(state):
            return False
        context = self.alphabet.context(state)
        return context is not None and await self._holds(self.potential.complete(context), state)

    async def is_over(self, state: Any) -> bool:
        return has_whole_texts(self.potential) and await self.accepts(state)

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray | None:
        return None

    def next_bytes(self, state: Any) -> range | None:
        return None if self.alphabet.is_whole(state) else continuing(state.data)

    async def _holds(self, weight: Any, text: Text) -> bool:
        value = checked_weight(await weight, self.potential, text.data)
        if value not in (0.0, -math.inf):
            raise PotentialError(
                f"{self.potential!r} was taken for a Boolean potential, but gave {show(text.data)} "
                f"the log-weight {value}: leave out `boolean(...)` to have it weigh"
            )
        return value == 0.0


# By vocabulary and potential: whether they agree.
_agreeing: WeakKeyDictionary[Vocabulary, WeakKeyDictionary[Potential, bool]] = WeakKeyDictionary()


def _agrees(potential: Potential, vocabulary: Vocabulary) -> bool:
    """Whether the tokens of a potential are those of a vocabulary."""
    if potential.vocab is vocabulary.text_tokens:
        return True
    found = _agreeing.setdefault(vocabulary, WeakKeyDictionary())
    if potential not in found:
        known = len(vocabulary.tokens)
        found[potential] = all(
            token.token_id < known and bytes(vocabulary.tokens[token.token_id]) == bytes(token)
            for token in potential.vocab
        )
    return found[potential]


def checked_weight(weight: Any, potential: Potential, text: bytes) -> float:
    """A log-weight as a float; `PotentialError` on NaN and +inf."""
    try:
        weight = float(weight)
    except (TypeError, ValueError):
        weight = repr(weight)
    if not isinstance(weight, float) or math.isnan(weight) or weight == math.inf:
        raise PotentialError(
            f"{potential!r} gave the log-weight {weight} to {show(text)}: "
            "a log-weight must be a number or -inf"
        )
    return weight


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


def common_alphabet(
    factor: Potential, vocabulary: Vocabulary | None, stops: tuple[bytes, ...]
) -> Alphabet:
    """How a factor reads texts of the LM. Raises `VocabularyError` if it can read none."""
    alphabet = Alphabet(factor, vocabulary)
    if alphabet.kind == "tokens":
        if vocabulary is None:
            raise VocabularyError(
                f"{factor!r} is over tokens: it needs a language model in the product"
            )
        if stops:
            raise VocabularyError(
                f"{factor!r} is over tokens and cannot see a text that ends at a stop inside "
                f"one: leave out stop={[s.decode('utf-8', 'replace') for s in stops]!r}"
            )
    if vocabulary is not None and not _spells(factor, alphabet.kind, vocabulary):
        shown = listed(factor.vocab, 5)
        raise VocabularyError(
            f"{factor!r} has no token in common with the language model, or means others by "
            f"the same ids: it is over {len(factor.vocab)} symbols ({shown})"
        )
    return alphabet


def _spells(factor: Potential, kind: str, vocabulary: Vocabulary) -> bool:
    """Whether at least one text token can be read by a potential of genlm-control."""
    if kind == "tokens":
        # Tokens are equal by their ids alone, so those of another tokenizer look alike.
        return _agrees(factor, vocabulary)
    if kind == "characters":
        spelled = {byte for symbol in factor.vocab for byte in symbol.encode("utf-8", "replace")}
    else:
        spelled = {symbol if isinstance(symbol, int) else symbol[0] for symbol in factor.vocab}
    return any(spelled.issuperset(token) for token in vocabulary.text_tokens)


_WHOLE = (BoolFSA, BoolCFG, FullValidatorJsonSchema, ParserPotential)
_BOOLEAN = (*_WHOLE, CanonicalTokenization)


def has_whole_texts(potential: Potential) -> bool:
    """Whether a Boolean potential of genlm-control is a pattern or a grammar, by which a text
    that need not end is over."""
    if isinstance(potential, AutoBatchedPotential | Coerced):
        return has_whole_texts(potential.potential)
    if isinstance(potential, GenlmProduct):
        return has_whole_texts(potential.p1) or has_whole_texts(potential.p2)
    return isinstance(potential, _WHOLE)


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
