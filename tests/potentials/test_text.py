"""OneOf and Contains: small automata that say what Python's strings say."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awrs_ppl import Context, ToyLM
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.potentials.text import Contains, OneOf
from awrs_ppl.proposals import AWRS
from awrs_ppl.testing import (
    assert_prefix_closed,
    assert_properly_weighted,
    enumerate_posterior,
)
from awrs_ppl.tokens.vocabulary import Vocabulary

NI, SMILE = "你".encode(), "😀".encode()
TOKENS = Vocabulary(
    [
        *(b"a", b"ab", b"aba", b"b", b"a", b"ba", b"\xc3", b"\xa9", "é".encode(), b"\xff", b"", NI),
        *(NI[:1], NI[1:], NI[2:] + b"a", SMILE, SMILE[:3], SMILE[3:], b"<end>", b"b" + NI[:2]),
        b"\xed\xa0\x80",
    ],
    ends=[18],
    special=[4],
    size=24,
)
WORDS = st.text("abé你😀", max_size=5)


def state_after(potential: BooleanPotential, data: bytes) -> Any:
    return potential.advance(potential.start(), data)


def check_contract(potential: Any, data: bytes) -> None:
    state: Any = potential.start()
    for at in range(len(data)):
        state = None if state is None else potential.advance(state, data[at : at + 1])
        assert state == state_after(potential, data[: at + 1])
        if state is None:
            assert state_after(potential, data) is None
            return
        assert potential.advance(state, b"") == state
        tokens = [*TOKENS.tokens, b"", b"", b""]
        assert potential.mask(state, TOKENS).tolist() == [
            bool(TOKENS.is_text[i]) and potential.advance(state, tokens[i]) is not None
            for i in range(TOKENS.size)
        ]


@settings(deadline=None, max_examples=200)
@given(st.lists(WORDS, min_size=1, max_size=8), WORDS)
def test_one_of_accepts_exactly_its_choices(choices: list[str], text: str):
    potential = OneOf(choices)
    for word in (text, *choices):
        data = word.encode()
        state = state_after(potential, data)
        assert (state is not None) == any(c.encode().startswith(data) for c in choices)
        assert (state is not None and potential.accepts(state)) == (word in choices)
        check_contract(potential, data)
        check_contract(potential, data + b"\xe4a")


@settings(deadline=None, max_examples=100)
@given(st.lists(WORDS, min_size=1, max_size=8), st.lists(WORDS, min_size=2, max_size=4))
def test_states_of_one_of_are_equal_where_futures_are(choices: list[str], begun: list[str]):
    potential = OneOf(choices)
    futures: dict[Any, frozenset[bytes]] = {}
    for text in [*begun, *choices, *(c[:1] for c in choices)]:
        data = text.encode()
        state = state_after(potential, data)
        if state is not None:
            rest = [c.encode() for c in choices if c.encode().startswith(data)]
            futures.setdefault(state, frozenset(c[len(data) :] for c in rest))
            assert futures[state] == frozenset(c[len(data) :] for c in rest)
    assert len(set(futures.values())) == len(futures)


@settings(deadline=None, max_examples=200)
@given(st.text("ab你é", max_size=4), st.text("ab你é😀", max_size=9))
def test_contains_accepts_exactly_texts_with_its_text(text: str, whole: str):
    potential = Contains(text)
    for cut in range(len(whole) + 1):
        state = state_after(potential, whole[:cut].encode())
        assert potential.accepts(state) == (text in whole[:cut])
    check_contract(potential, whole.encode())


def test_states_of_contains_are_equal_where_futures_are():
    potential = Contains("aab")
    states = {state_after(potential, text) for text in (b"a", b"ba", b"aba", b"xxa")}
    assert len(states) == 1
    states = {state_after(potential, text) for text in (b"aab", b"xaaby", b"aabaab")}
    assert len(states) == 1
    # The third a is not the end of the match begun before.
    assert potential.accepts(state_after(potential, b"aaab"))


def test_contains_rejects_broken_characters():
    potential = Contains("你")
    for wrong in (b"\xff", b"a\x80", b"\xc3a", b"\xed\xa0"):
        assert state_after(potential, wrong) is None
    assert not potential.accepts(state_after(potential, NI + NI[:2]))
    assert potential.accepts(state_after(potential, NI + NI))
    # The last byte of one character and the first of another are none.
    assert not potential.accepts(state_after(Contains("a"), "é".encode()))


class Wrong(OneOf):
    """Accepts where a longer choice could follow."""

    def accepts(self, state: Any) -> bool:
        return True


def test_one_of_that_ends_too_soon_is_found():
    choices = ["no", "not"]
    ends = [
        text
        for text in ("n", "no", "not")
        if Wrong(choices).accepts(state_after(Wrong(choices), text.encode()))
    ]
    assert ends != choices
    right = OneOf(choices)
    assert [
        t for t in ("n", "no", "not") if right.accepts(state_after(right, t.encode()))
    ] == choices


@pytest.mark.parametrize(
    "potential", [OneOf(["a", "ab", "ba"]), OneOf([""]), Contains("ab"), Contains("")], ids=str
)
async def test_text_potentials_pass_the_tests_of_genlm_control(potential: Any):
    allowed = [c for c in (b"", b"a", b"ab") if await potential.prefix(c) > -math.inf]
    for context in allowed:
        await potential.assert_logw_next_consistency(list(context))
        await potential.assert_autoreg_fact(list(context))
    await potential.assert_batch_consistency([list(context) for context in allowed])
    await assert_prefix_closed(potential, ["abab", "ba", "é"])
    lm = ToyLM(["a", "b", "ab", "c"], seed=4)
    for text in ("", "a"):
        if await potential.prefix(text.encode()) > -math.inf:
            await assert_properly_weighted(AWRS(), lm("a") * potential, text, draws=500)


async def test_posterior_of_a_product_is_over_common_texts():
    async def model(ctx: Context) -> str:
        lm = ToyLM(["a", "b", "ab"], seed=5)
        return await ctx.generate(
            lm("a") * OneOf(["ab", "abb", "b"]) * Contains("ab"), max_tokens=5
        )

    exact = await enumerate_posterior(model)
    assert set(exact.probabilities) == {"ab", "abb"}


def test_one_of_many_and_long_choices_accepts_them():
    choices = [f"{i * 7919 % 100003:x}" for i in range(3000)] + ["long" * 5000]
    potential = OneOf(choices)
    assert potential.accepts(state_after(potential, b"long" * 5000))
    assert all(potential.accepts(state_after(potential, c.encode())) for c in choices[::100])
    assert OneOf(iter(choices)).key == potential.key


def test_potentials_are_values():
    one, other = OneOf(["yes", "no", "yes"]), OneOf(("no", "yes"))
    assert one.key == other.key != OneOf(["no"]).key
    assert hash(one.key) == hash(other.key)
    assert one.choices == ("no", "yes")
    assert repr(OneOf("abcde"[i] for i in range(5))) == "OneOf(['a', 'b', 'c', …])"
    assert Contains("a").key == Contains("a").key != Contains("b").key
    assert repr(Contains("a")) == "Contains('a')"
    listed = ["a"]
    potential = OneOf(listed)
    listed.append("b")
    assert state_after(potential, b"b") is None


def test_masks_are_shared_bounded_and_freed_with_their_vocabulary():
    tokens = Vocabulary([b"a", b"b"], ends=[])
    for make in (lambda: OneOf(["ab", "shared"]), lambda: Contains("shared")):
        mask = make().mask(make().start(), tokens)
        assert mask is make().mask(make().start(), tokens)
        assert not mask.flags.writeable
    long = OneOf(["a" * 300 + "bounded"])
    for n in range(300):
        assert np.flatnonzero(long.mask(state_after(long, b"a" * n), tokens)).tolist() == [0]
    assert len(long._words._masks._known[tokens]) <= 64
    gone = weakref.ref(tokens)
    del tokens
    gc.collect()
    assert gone() is None


def test_wrong_arguments_raise_with_the_reason():
    with pytest.raises(TypeError, match="'abc': give it a list of texts"):
        OneOf("abc")
    with pytest.raises(TypeError, match="the choice 3"):
        OneOf(["a", 3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no choices"):
        OneOf([])
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        OneOf(["\ud800"])
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        Contains("\ud800")
    with pytest.raises(TypeError, match="a str or bytes"):
        Contains(3)  # pyright: ignore[reportArgumentType]
