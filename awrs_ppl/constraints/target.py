"""The factors of a product, sorted by what they say of the next token."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from awrs_ppl._genlm import Potential
from awrs_ppl.constraints.before_stops import before_stop
from awrs_ppl.constraints.dense import Dense, adopted
from awrs_ppl.constraints.factor import ByteFactor, Factor, evaluate
from awrs_ppl.constraints.genlm_factor import TokenFactor, common_alphabet, is_boolean
from awrs_ppl.constraints.no_potential import not_a_potential
from awrs_ppl.constraints.potential import BooleanPotential, State
from awrs_ppl.constraints.weighing import Weigher
from awrs_ppl.errors import VocabularyError
from awrs_ppl.tokens.text import EMPTY, Text
from awrs_ppl.tokens.vocabulary import Vocabulary

__all__ = ["Target", "start"]


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
                raise not_a_potential(factor)
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
                boolean.append(before_stop(ByteFactor(factor), stops))
                continue
            alphabet = common_alphabet(factor, vocabulary, stops)
            if is_boolean(factor):
                boolean.append(before_stop(TokenFactor(factor, alphabet), stops))
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
