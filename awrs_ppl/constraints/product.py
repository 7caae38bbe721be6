"""Products of potentials, sorted by what the factors say of the next token."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from genlm.backend.tokenization import Token
from genlm.control.potential.base import Potential

from awrs_ppl._concurrency import together
from awrs_ppl._messages import listed
from awrs_ppl.constraints.dense import Dense, adopted
from awrs_ppl.constraints.factor import ByteFactor, Factor, evaluate
from awrs_ppl.constraints.genlm_factor import Alphabet, TokenFactor, is_boolean
from awrs_ppl.constraints.potential import (
    BYTE_TABLES,
    BYTES,
    BooleanPotential,
    Multiplicative,
    State,
)
from awrs_ppl.constraints.weighing import Weigher
from awrs_ppl.errors import VocabularyError
from awrs_ppl.tokens.text import EMPTY, Text
from awrs_ppl.tokens.underflow import end_log_weight
from awrs_ppl.tokens.vocabulary import Vocabulary, first_stop

__all__ = ["Product", "Target", "product"]


@dataclass(frozen=True, slots=True)
class Target:
    """A product, sorted: `dense` proposes, `boolean` filters, `weighted` weighs.

    `key` is equal for products that say the same of every text.
    """

    factors: tuple[Potential, ...]
    dense: tuple[Dense, ...]
    boolean: tuple[Factor, ...]
    weighted: tuple[Weigher, ...]
    vocabulary: Vocabulary | None
    stops: tuple[bytes, ...]

    @property
    def key(self) -> tuple[Hashable, tuple[Hashable, ...], Hashable]:
        """Equal for targets that say the same of every text."""
        return (
            tuple(lm.key for lm in self.dense),
            self.keys,
            tuple(id(weigher.potential) for weigher in self.weighted),
        )

    @property
    def keys(self) -> tuple[Hashable, ...]:
        """The keys of the Boolean factors: equal ones say the same of every text."""
        return tuple(factor.key for factor in self.boolean)

    @classmethod
    def of(cls, factors: Sequence[Potential]) -> Target:
        """Sort the factors. Raises `VocabularyError` if they share no token."""
        for factor in factors:
            if isinstance(factor, type) or not isinstance(factor, Potential):
                raise TypeError(
                    f"a product got {factor!r}: its factors are potentials, such as Regex('a+') "
                    "or predicate(f)"
                )
        factors = tuple(adopted(factor) for factor in factors)
        dense = tuple(factor for factor in factors if isinstance(factor, Dense))
        vocabulary = dense[0].lm.vocabulary if dense else None
        for lm in dense[1:]:
            if not dense[0].lm.shares_vocabulary(lm.lm):
                raise VocabularyError(
                    f"{dense[0]!r} and {lm!r} have different vocabularies: language models are "
                    "multiplied token by token, so they need the same tokenizer"
                )
        stops = tuple(dict.fromkeys(stop for lm in dense for stop in lm.stops))
        boolean: list[Factor] = []
        weighted: list[Weigher] = []
        for factor in factors:
            if isinstance(factor, Dense):
                continue
            if isinstance(factor, BooleanPotential):
                boolean.append(ByteFactor(factor))
                continue
            alphabet = common_alphabet(factor, vocabulary, stops)
            if is_boolean(factor):
                boolean.append(TokenFactor(factor, alphabet))
            else:
                weighted.append(Weigher(factor, alphabet))
        # Masks first: only what they leave is checked.
        boolean.sort(key=lambda factor: getattr(factor.potential, "mask", None) is None)
        return cls(factors, dense, tuple(boolean), tuple(weighted), vocabulary, stops)


async def start(target: Target, text: Text = EMPTY) -> tuple[State, ...] | str:
    """The states after a text, or the name of a Boolean factor that rejects it."""
    states: list[State] = []
    for factor in target.boolean:
        state = await evaluate(factor, factor.begin(text), text.data)
        if state is None:
            return repr(factor.potential)
        states.append(state)
    return tuple(states)


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
        return vocabulary.agrees(factor)
    if kind == "characters":
        spelled = {byte for symbol in factor.vocab for byte in symbol.encode("utf-8", "replace")}
    else:
        spelled = {symbol if isinstance(symbol, int) else symbol[0] for symbol in factor.vocab}
    return any(spelled.issuperset(token) for token in vocabulary.text_tokens)


class Product(Multiplicative):
    """The product of potentials; made by `p * q` or `product(p, q, ...)`.

    Its vocabulary is that of its language model, or the bytes if it has none. A token that a
    factor cannot spell weighs 0; nothing is renormalized.

    >>> from awrs_ppl.potentials import Contains, Regex
    >>> import asyncio
    >>> asyncio.run((Regex("[a-z]+") * Contains("ab")).complete(b"cab"))
    0.0
    """

    def __init__(self, factors: Sequence[Potential]) -> None:
        flat: list[Potential] = []
        for factor in factors:
            flat.extend(factor.target.factors if isinstance(factor, Product) else [factor])
        self.target = Target.of(flat)
        vocabulary = self.target.vocabulary
        if vocabulary is None:
            super().__init__(BYTES, tables=BYTE_TABLES)
        else:
            super().__init__(vocabulary.text_tokens, tables=vocabulary.tables)

    @property
    def key(self) -> Hashable:
        """Equal for products that say the same of every text."""
        return self.target.key

    def is_terminal_only(self) -> bool:
        """Whether only whole texts are weighed."""
        return all(factor.is_terminal_only() for factor in self.target.factors)

    @property
    def fingerprint(self) -> str:
        """What a replay compares: the fingerprints of the factors."""
        return " * ".join(fingerprint(factor) for factor in self.target.factors)

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.target.factors))

    async def prefix(self, context: Any) -> float:
        """The log-weight of a context (tokens, or bytes) as a prefix."""
        return await self._score(context, ends=False)

    async def complete(self, context: Any) -> float:
        """The log-weight of a context (tokens, or bytes) with its end."""
        return await self._score(context, ends=True)

    async def _score(self, context: Any, *, ends: bool) -> float:
        text = as_text(context)
        weight = 0.0
        for factor in self.target.boolean:
            state = await factor.begin(text)
            if state is None or (ends and not await factor.accepts(state)):
                return -math.inf
        for weigher in self.target.weighted:
            weigh = weigher.completes if ends else weigher.prefixes
            weight += (await weigh([text]))[0]
        return weight + await dense_log_weight(self.target, text, ends=ends)


async def dense_log_weight(target: Target, text: Text, *, ends: bool) -> float:
    """The log-weight that a product's language models give to a text, with its end if `ends`.

    -inf for a text with a stop in it: it would have ended before.
    """
    if first_stop(text.data, target.stops) is not None:
        return -math.inf
    requests = defaultdict(list)
    for lm in target.dense:
        requests[lm.lm, lm.temperature].append((lm.prompt, text.tokens))

    async def score(
        lm: Any, temperature: float, batch: list[Any]
    ) -> tuple[float, list[np.ndarray]]:
        weight = sum(await lm.scores(batch, temperature))
        if not ends:
            return weight, []
        contexts = [prompt + tokens for prompt, tokens in batch]
        return weight, list(await lm.log_probs(contexts, [temperature] * len(contexts)))

    answers = await together(score(lm, t, batch) for (lm, t), batch in requests.items())
    weight = sum(answer for answer, _ in answers)
    if ends and target.vocabulary is not None and weight > -math.inf:
        rows = [row for _, rows in answers for row in rows]
        weight += end_log_weight(rows, target.vocabulary, target.stops, text.data)
    return weight


def as_text(context: Any) -> Text:
    """A context of genlm-control (bytes, ints or Tokens) as a text."""
    if isinstance(context, bytes):
        return Text(context)
    if context and isinstance(context[0], Token):
        return Text(b"".join(context), tuple(token.token_id for token in context))
    return Text(bytes(context))


def fingerprint(potential: Potential) -> str:
    """The kind of a potential, ours or genlm-control's, for comparing a replay with its record."""
    return getattr(potential, "fingerprint", type(potential).__qualname__)


def product(*potentials: Potential) -> Product:
    """The product of potentials, in any order, genlm-control's included.

    Boolean ones filter, others weigh. Raises `VocabularyError` if they share no token.

    >>> from awrs_ppl.potentials import Contains, Regex
    >>> product(Regex("[a-z]+"), Contains("ab"))
    Regex('[a-z]+') * Contains('ab')
    """
    return Product(potentials)
