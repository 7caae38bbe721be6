"""The contract of potentials, their products, and their use inside genlm-control."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from genlm.backend.tokenization import Token
from genlm.control import AWRS as GenlmAWRS
from genlm.control import SMC, WFSA, BoolFSA, Potential, PromptedLLM, direct_token_sampler
from hypothesis import given, settings
from hypothesis import strategies as st

from awrs_ppl import BooleanPotential, Context, ToyLM, infer, predicate, product
from awrs_ppl.constraints.genlm_factor import is_boolean
from awrs_ppl.potentials import Product, Regex, Soft, boolean
from awrs_ppl.program.text_statements import Generate
from awrs_ppl.testing import (
    assert_prefix_closed,
    assert_unbiased,
    enumerate_posterior,
)
from awrs_ppl.testing.enumeration import enumerate_texts
from awrs_ppl.tokens.text import decode

SNOW, FACE = "雪".encode(), "🙂".encode()
LETTERS = ToyLM(["a", "b", "ab", "c"], seed=1)
PIECES = ToyLM(
    [
        "a",
        SNOW,
        SNOW[:1],
        SNOW[1:],
        FACE[:2],
        FACE[2:],
        FACE,
        b"\xff",
        "é".encode(),
        b"a" + SNOW[:2],
    ],
    seed=2,
)


@predicate
def few_marks(text: str) -> bool:
    """At most two characters beyond ASCII, and no snow after a smile."""
    return sum(c > "\x7f" for c in text) <= 2 and "🙂雪" not in text


@predicate(
    state=lambda text: (text[-1:], text.count("a") % 2, text == "a"),
    complete=lambda text: text != "a",
)
def stateful(text: str) -> bool:
    return "aa" not in text


TEXTS = st.text(alphabet="ab雪🙂é", max_size=6)


@given(TEXTS, st.integers(0, 12), st.integers(0, 12))
@pytest.mark.parametrize("potential", [few_marks, stateful, Regex("(a|b|雪)*")], ids=str)
def test_advance_in_pieces_gives_the_state_of_the_whole(
    potential: Any, text: str, i: int, j: int
) -> None:
    """advance(advance(s, a), b) == advance(s, a + b), wherever bytes are cut."""
    data = text.encode()
    i, j = sorted((min(i, len(data)), min(j, len(data))))
    start = potential.start()
    whole = potential.advance(start, data)
    state = potential.advance(start, data[:i])
    for piece in (data[i:j], data[j:]):
        state = None if state is None else potential.advance(state, piece)
    assert state == whole
    if whole is not None:
        assert potential.advance(whole, b"") == whole
        assert hash(state) == hash(whole)


@given(st.lists(st.binary(max_size=6) | TEXTS, min_size=1, max_size=4))
@settings(max_examples=50)
async def _closed(potential: BooleanPotential, samples: list[Any]) -> None:
    await assert_prefix_closed(potential, samples)


@pytest.mark.parametrize("potential", [few_marks, stateful, Regex("(a|b|雪)*")], ids=str)
async def test_potentials_are_prefix_closed(potential: Any) -> None:
    for sample in ["aab", "雪🙂雪", "é雪a", b"\xffa", FACE + SNOW[:2], "🙂🙂🙂", ""]:
        await assert_prefix_closed(potential, [sample])


CODES = (0xE9, 0x800, 0xD7FF, 0x96EA, 0x10000, 0x1F642)
PREFIXES = [chr(code).encode()[:length] for code in CODES for length in (1, 2, 3)]


@pytest.mark.parametrize("data", [*PREFIXES, b"\xf4", b"\xed", b"", b"a"])
@pytest.mark.parametrize("potential", [predicate(lambda text: True), Regex(r"(?s)(x?)\1.*")])
def test_next_bytes_in_a_multi_byte_character_are_those_allowed(
    potential: Any, data: bytes
) -> None:
    """Exactly the bytes that `next_bytes` names are allowed next, where all characters are."""
    state = potential.advance(potential.start(), data)
    allowed = {b for b in range(256) if potential.advance(state, bytes([b])) is not None}
    next_bytes = potential.next_bytes(state)
    try:
        data.decode()
    except UnicodeDecodeError:
        assert allowed == set(next_bytes)
    else:
        assert next_bytes is None


async def test_wrong_next_bytes_are_found() -> None:
    class Narrow(type(few_marks)):
        def next_bytes(self, state: Any) -> range | None:
            return range(ord("a"), ord("b"))

    with pytest.raises(AssertionError, match=r"allows b'ab', and says by its `next_bytes`"):
        await assert_prefix_closed(Narrow(lambda text: True), ["ab"])


async def test_text_in_a_multi_byte_character_cannot_end() -> None:
    for cut in (1, 2, 3):
        assert await few_marks.prefix(FACE[:cut]) == 0.0
        assert await few_marks.complete(FACE[:cut]) == -math.inf
    assert await few_marks.complete(FACE) == 0.0
    assert await few_marks.prefix(b"\xff") == -math.inf
    with pytest.raises(UnicodeDecodeError):
        decode(b"a\xed\xa0")
    assert decode(b"a" + SNOW[:2]) == ("a", SNOW[:2])


async def test_predicate_in_a_multi_byte_character_is_not_called() -> None:
    called: list[str] = []

    @predicate
    def watch(text: str) -> bool:
        called.append(text)
        return True

    state = watch.advance(watch.start(), b"a")
    for byte in SNOW:
        state = watch.advance(state, bytes([byte]))
    assert called == ["a", "a雪"]


async def test_texts_in_pieces_have_the_right_posterior() -> None:
    """Chinese, emoji, and bytes that are no UTF-8, split over tokens."""

    async def model(ctx: Context) -> str:
        return await ctx.generate(PIECES("go") * few_marks, max_tokens=4)

    await assert_unbiased(model, runs=60, n_particles=30, ess_threshold=0.9)
    exact = await enumerate_posterior(model)
    assert "雪" in exact.probabilities
    assert all(text == text.encode().decode() for text in exact.probabilities)


async def test_bytes_that_are_no_utf8_come_out_escaped() -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(PIECES("go"), max_tokens=3)

    posterior = await infer(model, n_particles=200, seed=0, progress=False)
    broken = [value for value in posterior.values if "\udcff" in value]
    assert broken
    assert broken[0].encode("utf-8", "surrogateescape").count(b"\xff") >= 1


async def test_potential_that_judges_partial_characters_is_caught() -> None:
    """It gives another posterior than a predicate that waits for whole characters."""

    class Hasty(BooleanPotential):
        def start(self) -> bytes:
            return b""

        def advance(self, state: Any, data: bytes) -> bytes | None:
            text = (state + data).decode("utf-8", "replace")
            return state + data if few_marks(text) and "\ufffd" not in text else None

        def accepts(self, state: Any) -> bool:
            return True

    async def right(ctx: Context) -> str:
        return await ctx.generate(PIECES("go") * few_marks, max_tokens=4)

    async def wrong(ctx: Context) -> str:
        return await ctx.generate(PIECES("go") * Hasty(), max_tokens=4)

    one, two = await enumerate_posterior(right), await enumerate_posterior(wrong)
    assert abs(one.log_ml - two.log_ml) > 0.1


@pytest.mark.parametrize(
    "potential", [few_marks, stateful, Regex("(ab|雪)*"), Soft(len, prefix=len)], ids=str
)
async def test_potentials_pass_the_tests_of_genlm_control(potential: Potential) -> None:
    contexts = [b"", b"a", b"ab", SNOW, SNOW[:2]]
    for context in contexts:
        if await potential.prefix(context) > -math.inf:
            await potential.assert_logw_next_consistency(list(context))
            await potential.assert_autoreg_fact(list(context))
    await potential.assert_batch_consistency([list(c) for c in contexts[:3]])


async def test_prompted_lm_passes_the_tests_of_genlm_control() -> None:
    for stop in (None, "c"):
        potential = LETTERS("ab", stop=stop, temperature=0.7)
        vocabulary = potential.vocab
        for context in ([], vocabulary[:2], [vocabulary[2], vocabulary[0]]):
            await potential.assert_autoreg_fact(context)
            if stop is None:
                await potential.assert_logw_next_consistency(context)
                total = (await potential.logw_next(context)).weights
                assert np.logaddexp.reduce(total) == pytest.approx(0.0)
        await potential.assert_batch_consistency([[], vocabulary[:2]])


ALTERNATIVES = BoolFSA.from_regex("(ab|b)*c?")
LENGTHS = WFSA.from_regex("[abc]*")


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        lambda lm: lm * ALTERNATIVES,
        lambda lm: product(ALTERNATIVES, lm),
        lambda lm: stateful * lm * ALTERNATIVES,
        lambda lm: product(ALTERNATIVES, stateful, lm * Soft(len)),
        lambda lm: lm * LENGTHS,
        lambda lm: lm * LENGTHS * Regex("[abc]*") * stateful,
        lambda lm: lm * LETTERS("other", temperature=2.0) * ALTERNATIVES,
    ],
)
async def test_products_with_potentials_of_genlm_control_are_unbiased(build: Any) -> None:
    async def model(ctx: Context) -> str:
        return await ctx.generate(build(LETTERS("go")), max_tokens=4)

    await assert_unbiased(model, runs=60, n_particles=20, ess_threshold=0.9)


async def test_product_scores_as_its_factors_do() -> None:
    lm = LETTERS("go")
    whole = lm * stateful * LENGTHS * Soft(lambda text: 0.25 * len(text))
    assert isinstance(whole, Product)
    for tokens in ([], [0, 1], [2, 3], [0, 0]):
        context = [Token(i, bytes(LETTERS.vocabulary.tokens[i])) for i in tokens]
        data = b"".join(context)
        for how in ("prefix", "complete"):
            parts = [await getattr(lm, how)(context)]
            parts += [
                await getattr(p, how)(data)
                for p in (stateful, LENGTHS, Soft(lambda text: 0.25 * len(text)))
            ]
            expected = -math.inf if -math.inf in parts else sum(parts)
            assert await getattr(whole, how)(context) == pytest.approx(expected)


async def test_boolean_potentials_are_known_and_wrong_ones_named() -> None:
    assert is_boolean(ALTERNATIVES)
    assert is_boolean(ALTERNATIVES.to_autobatched())
    assert not is_boolean(LENGTHS)

    class Custom(Potential):
        async def prefix(self, context: Any) -> float:
            return -1.0

        async def complete(self, context: Any) -> float:
            return 0.0

    custom = boolean(Custom(list(range(256))))

    async def model(ctx: Context) -> str:
        return await ctx.generate(LETTERS("go") * custom, max_tokens=3)

    from awrs_ppl import PotentialError

    with pytest.raises(PotentialError, match=r"taken for a Boolean potential.*-1\.0"):
        await infer(model, seed=0, progress=False)


async def test_predicate_in_samplers_of_genlm_control_gives_the_evidence() -> None:
    """A predicate of ours in its AWRS and SMC, and a prompt of ours as its LM."""
    lm = LETTERS("go")
    condition = stateful.coerce(lm, f=b"".join)
    evidence = []
    for seed in range(150):
        sequences = await SMC(GenlmAWRS(lm, condition, seed=seed))(
            n_particles=10, ess_threshold=0.5, max_tokens=3
        )
        evidence.append(math.exp(sequences.log_ml))
        assert all("aa" not in text for text in sequences.decoded_posterior)
    statement = Generate("text", lm * stateful, 3)
    exact = math.exp(np.logaddexp.reduce(list((await enumerate_texts(statement)).values())))
    error = np.std(evidence) / math.sqrt(len(evidence))
    assert abs(np.mean(evidence) - exact) < 4.5 * error
    sequences = await direct_token_sampler(lm).smc(n_particles=3, ess_threshold=0.5, max_tokens=4)
    assert sequences.size == 3


async def test_prompted_llm_in_a_product_gives_the_evidence() -> None:
    """`PromptedLLM` on an engine of genlm-backend proposes like one of ours."""
    from genlm.backend.llm.base import MockAsyncLM
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: i for i, symbol in enumerate([*alphabet, "ab", "<eos>"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    llm = PromptedLLM(MockAsyncLM(tokenizer), prompt_ids=[65, 66])

    async def model(ctx: Context) -> str:
        return await ctx.generate(Regex("[ab]{1,2}") * llm, max_tokens=3)

    posterior = await infer(model, n_particles=40, seed=0, progress=False)
    assert set(posterior.values) <= {"a", "b", "ab", "ba", "aa", "bb"}
    statement = Generate("text", product(Regex("[ab]{1,2}"), llm), 3)
    exact = np.logaddexp.reduce(list((await enumerate_texts(statement)).values()))
    assert posterior.log_ml == pytest.approx(exact, abs=0.5)


async def test_async_predicates_are_unbiased() -> None:
    @predicate
    async def slow(text: str) -> bool:
        return "aa" not in text

    async def model(ctx: Context) -> str:
        return await ctx.generate(LETTERS("go") * slow, max_tokens=4)

    await assert_unbiased(model, runs=40, n_particles=20)


def test_states_that_forget_are_equal() -> None:
    def after(text: str) -> Any:
        return stateful.advance(stateful.start(), text.encode())

    assert after("ab") == after("bbab")
    assert after("ab") != after("abab")
    assert len({after("ab"), after("bbab"), after("abab")}) == 2


async def test_state_that_cannot_be_hashed_is_rejected() -> None:
    from awrs_ppl import PotentialError

    listing = predicate(lambda text: True, state=lambda text: [text])  # pyright: ignore
    with pytest.raises(PotentialError, match="cannot be hashed"):
        await listing.prefix(b"a")


def test_keys_of_equal_products_are_equal() -> None:
    def key() -> Any:
        return (LETTERS("go", stop="c") * Regex("a*") * stateful).key

    assert key() == key()
    assert hash(key()) == hash(key())
    assert key() != (LETTERS("go") * Regex("a*") * stateful).key


async def test_masks_of_the_wrong_shape_or_dtype_are_rejected() -> None:
    from awrs_ppl import PotentialError

    class Wrong(BooleanPotential):
        def start(self) -> int:
            return 0

        def advance(self, state: Any, data: bytes) -> int:
            return state

        def accepts(self, state: Any) -> bool:
            return True

        def mask(self, state: Any, vocabulary: Any) -> Any:
            return np.ones(3)

    async def model(ctx: Context) -> str:
        return await ctx.generate(LETTERS("go") * Wrong(), max_tokens=3)

    with pytest.raises(PotentialError, match=r"dtype float64 and shape \(3,\)"):
        await infer(model, seed=0, progress=False)
