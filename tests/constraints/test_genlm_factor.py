"""Potentials of genlm-control over bytes, characters and tokens, as factors of our products.

Each stands for the same rule on texts. The judge is the rule itself on whole texts: their
posterior by enumeration, where a predicate takes the place of the potential.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from genlm.control.potential.base import Potential

from awrs_ppl import Context, ToyLM, predicate, product
from awrs_ppl.constraints.function_key import function_key
from awrs_ppl.constraints.genlm_factor import TokenFactor, boolean, common_alphabet
from awrs_ppl.constraints.product import target_of
from awrs_ppl.errors import PotentialError, VocabularyError
from awrs_ppl.testing import assert_unbiased, enumerate_posterior
from awrs_ppl.testing.enumeration import Exact
from awrs_ppl.tokens.text import Text

# Two tokens end in a multi-byte character, one begins with its rest, one has a stop in it.
TOKENS = [b"a", b"b", "é".encode()[:1], "é".encode()[1:], "éb".encode(), b"a.b"]


def weights(context: tuple[int, ...]) -> list[float]:
    return [2.0, 1.0 + len(context), 2.0, 3.0, 1.0, 1.5, 1.0]


LM = ToyLM(TOKENS, weights=weights)


def few_a(text: str) -> bool:
    """No two a, and no b in front: what is rejected stays rejected."""
    return text.count("a") < 2 and not text.startswith("b")


def ends_well(text: str) -> bool:
    return few_a(text) and text != "a"


class OfSymbols(Potential):
    """The rule, over any kind of symbols."""

    def __init__(self, symbols: list[Any], read: Callable[[Any], bytes]) -> None:
        super().__init__(symbols)
        self._read = read

    async def _weight(self, context: Any, rule: Callable[[str], bool]) -> float:
        data = b"".join(map(self._read, context))
        # A character that is not whole cannot be judged yet.
        whole = data.decode("utf-8", "ignore")
        if rule is ends_well and whole.encode() != data:
            return -math.inf
        return 0.0 if rule(whole) else -math.inf

    async def prefix(self, context: Any) -> float:
        return await self._weight(context, few_a)

    async def complete(self, context: Any) -> float:
        return await self._weight(context, ends_well)


KINDS: dict[str, Callable[[], OfSymbols]] = {
    "ints": lambda: OfSymbols(list(range(256)), lambda byte: bytes([byte])),
    "single bytes": lambda: OfSymbols([bytes([i]) for i in range(256)], lambda byte: byte),
    "characters": lambda: OfSymbols(list("abé."), lambda character: character.encode()),
    "tokens": lambda: OfSymbols(list(LM("a").lm.vocabulary.text_tokens), bytes),
}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [(), (".",)], ids=["end token", "stop"])
@pytest.mark.parametrize("kind", KINDS)
async def test_boolean_potential_over_any_symbols_restricts_as_its_rule(
    kind: str, stop: Any
) -> None:
    if kind == "tokens" and stop:
        with pytest.raises(VocabularyError, match="over tokens and cannot see a text that ends"):
            product(LM("a", stop=stop), boolean(KINDS[kind]()))
        return
    allowed = boolean(KINDS[kind]())

    async def restricted(ctx: Context, by: Any = allowed) -> str:
        return await ctx.generate(LM("a", stop=stop) * by, max_tokens=4)

    found = _masses(await enumerate_posterior(restricted))
    right = _masses(await enumerate_posterior(restricted, predicate(few_a, complete=ends_well)))
    assert found == pytest.approx(right)
    assert any("é" in text for text in right)
    await assert_unbiased(restricted, n_particles=8, runs=60)


def _masses(exact: Exact) -> dict[str, float]:
    return {text: p * math.exp(exact.log_ml) for text, p in exact.probabilities.items()}


@pytest.mark.parametrize("kind", KINDS)
async def test_factor_of_any_symbols_at_a_partial_character_decides_at_its_end(kind: str) -> None:
    potential = KINDS[kind]()
    factor: Any = TokenFactor(potential, common_alphabet(potential, LM("a").lm.vocabulary, ()))
    partial = await factor.advance(await factor.begin(Text()), 2, TOKENS[2])
    assert partial is not None
    assert not await factor.accepts(partial)
    follows = factor.next_bytes(partial)
    assert follows == (range(0x80, 0xC0) if kind == "characters" else None)
    whole = await factor.advance(partial, 3, TOKENS[3])
    assert whole is not None
    assert whole.data.decode() == "é"
    assert await factor.accepts(whole)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tokens"])
async def test_factor_of_any_symbols_after_bytes_that_are_no_token_reads_them(kind: str) -> None:
    potential = KINDS[kind]()
    factor: Any = TokenFactor(potential, common_alphabet(potential, LM("a").lm.vocabulary, ()))
    state = await factor.advance(await factor.begin(Text(b"a", (0,))), None, b"b")
    assert state == Text(b"ab", (0,))
    assert await factor.accepts(state)
    assert await factor.advance(state, None, b"ba") is None


@pytest.mark.parametrize(
    "symbols",
    [["x", "y"], [b"x"], [300, 301], [ord("x")]],
    ids=["str", "bytes", "ints", "int"],
)
async def test_potential_without_a_symbol_of_the_language_model_is_rejected(symbols: Any) -> None:
    potential = OfSymbols(symbols, lambda symbol: b"x")
    with pytest.raises(VocabularyError, match="no token in common"):
        product(LM("a"), potential)


async def test_potential_declared_boolean_that_weighs_raises_an_error() -> None:
    class Half(OfSymbols):
        async def prefix(self, context: Any) -> float:
            return math.log(0.5)

    half = boolean(Half(list(range(256)), lambda byte: bytes([byte])))
    factor = target_of(LM("a") * half).boolean[0]
    with pytest.raises(PotentialError, match=r"taken for a Boolean potential, but gave .*-0\.69"):
        await factor.begin(Text(b"a"))


class Rules:
    def short(self, text: str) -> bool:
        return len(text) < 3

    def even(self, text: str) -> bool:
        return len(text) % 2 == 0


def test_key_of_two_methods_of_one_object_differs() -> None:
    rules, others = Rules(), Rules()
    assert function_key(rules.short) == function_key(rules.short)
    assert function_key(rules.short) != function_key(rules.even)
    assert function_key(rules.short) != function_key(others.short)


async def test_verdicts_of_two_methods_of_one_object_are_kept_apart() -> None:
    """Two statements whose predicates are methods of one object share no verdict."""
    rules = Rules()

    async def model(ctx: Context) -> tuple[str, str]:
        first = await ctx.generate(LM("a") * predicate(rules.short), max_tokens=3)
        prefix_closed = predicate(complete=rules.even)(lambda text: True)
        return first, await ctx.generate(LM("a") * prefix_closed, max_tokens=3)

    await assert_unbiased(model, n_particles=6, runs=60)
