"""Grammar: the texts of a grammar and their beginnings, with masks that say the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark
from lark.exceptions import LarkError

from awrs_ppl import ToyLM
from awrs_ppl.potentials.grammar import Grammar
from awrs_ppl.proposals import AWRS
from awrs_ppl.testing import assert_prefix_closed, assert_properly_weighted
from awrs_ppl.vocabulary import Vocabulary

SUMS = """
start: term (("+" | "-") term)*
term: NUMBER | "(" start ")" | "é"
NUMBER: /[0-9]+/
"""
NESTED = 'start: "a" start "b" | "ab"'
GRAMMARS = {SUMS: "12(+)-é", NESTED: "ab"}
TOKENS = Vocabulary(
    [
        *(b"1", b"12", b"+", b"(", b")", b"(1+", b"))", b"-(", "é".encode(), "é".encode()[:1]),
        *(
            b"\xa9",
            b"\xa9)",
            b"a",
            b"aa",
            b"b",
            b"bb",
            b"ab",
            b"aab",
            b"<end>",
            b"",
            b"\xff",
            b"1a",
        ),
    ],
    ends=[18],
    size=24,
)


def verdict(potential: Grammar, data: bytes) -> tuple[bool, bool]:
    state = potential.advance(potential.start(), data)
    return state is not None, state is not None and potential.accepts(state)


def parses(lark: str, text: str) -> bool:
    try:
        Lark(lark, parser="earley").parse(text)
    except LarkError:
        return False
    return True


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(GRAMMARS)).flatmap(
        lambda lark: st.tuples(st.just(lark), st.text(GRAMMARS[lark], max_size=8))
    )
)
def test_whole_texts_are_those_that_lark_parses(case: tuple[str, str]):
    lark, text = case
    potential, data = Grammar(lark), text.encode()
    begun, done = verdict(potential, data)
    assert done == parses(lark, text)
    assert begun or not done
    state: Any = potential.start()
    for at in range(len(data)):
        if state is not None:
            state = potential.advance(state, data[at : at + 1])
        assert state == potential.advance(potential.start(), data[: at + 1])
        # Once out, always out.
        assert (state is not None) or not begun


def test_every_beginning_can_be_completed():
    for lark, texts in ((SUMS, ["1+(2-é)", "((1))"]), (NESTED, ["aaabbb", "ab"])):
        potential = Grammar(lark)
        for text in texts:
            data = text.encode()
            assert verdict(potential, data) == (True, True)
            assert all(verdict(potential, data[:at])[0] for at in range(len(data)))
    assert verdict(Grammar(NESTED), b"aab") == (True, False)
    assert verdict(Grammar(NESTED), b"aba") == (False, False)
    assert verdict(Grammar(SUMS), b"1)") == (False, False)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(GRAMMARS)), st.data())
def test_masks_are_what_advance_says(lark: str, data: st.DataObject):
    potential = Grammar(lark)
    state: Any = potential.start()
    for _ in range(6):
        mask = potential.mask(state, TOKENS)
        tokens = [*TOKENS.tokens, b"", b""]
        assert mask.tolist() == [
            bool(TOKENS.is_text[i]) and potential.advance(state, tokens[i]) is not None
            for i in range(TOKENS.size)
        ]
        if not mask.any():
            break
        token = data.draw(st.sampled_from(np.flatnonzero(mask).tolist()))
        state = potential.advance(state, TOKENS.tokens[token])


def test_the_only_text_can_be_spelled_in_every_way():
    tokens = Vocabulary([b"h", b"he", b"hello", b"lo", b"l", b"<end>"], ends=[5])
    for header in ("", "%llguidance {}\n", '%llguidance {"no_forcing": false}\n'):
        mask = Grammar(f'{header}start: "hello"').mask(b"", tokens)
        assert mask.tolist() == [True] * 3 + [False] * 3


def test_spaces_can_be_ignored():
    potential = Grammar('start: "a" "b"\n%ignore / +/')
    assert verdict(potential, b"a  b") == (True, True)
    assert verdict(potential, b"a\nb") == (False, False)


def test_gbnf_is_translated():
    potential = Grammar.from_gbnf('root ::= "(" root ")" | digit+\ndigit ::= [0-9]')
    assert verdict(potential, b"((12))") == (True, True)
    assert verdict(potential, b"((12)") == (True, False)
    assert verdict(potential, b"((x") == (False, False)
    for wrong, why in (('root ::= "a', "Unexpected|does not"), ('x ::= "a"', "No 'root' rule")):
        with pytest.raises(ValueError, match=why):
            Grammar.from_gbnf(wrong)
    with pytest.raises(TypeError, match="must be a str"):
        Grammar.from_gbnf(None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("lark", "message"),
    [
        ('x: "a"', "no start rule"),
        ('start: "a\nx: "b"', r"does not compile: 1\(10\)"),
        ('start: "a"\n  | /(?=a)b/', r"does not compile: at 1\(8\)(?s:.*)look-around"),
        ("start: nothing", "nothing"),
        ('start: "a" <[1-3]>', r"'<\[' is about the tokens"),
        ("start: a\na[max_tokens=3]: /.*/", "'max_tokens' is about the tokens"),
        ("start: <|im_end|>", "special token"),
        ('start: %json {"type": "integr"}', "does not compile"),
    ],
)
def test_a_grammar_that_does_not_compile_says_why(lark: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        Grammar(lark)
    assert str(caught.value).startswith(f"Grammar({lark.strip()!r:.12}")


def test_what_only_looks_like_a_token_is_text():
    assert verdict(Grammar('start: "<[1]>" // <[2]>, max_tokens'), b"<[1]>") == (True, True)
    with pytest.raises(TypeError, match="must be a str"):
        Grammar(b"start: /a/")  # pyright: ignore[reportArgumentType]


def test_potentials_are_values():
    one, other = Grammar(NESTED), Grammar(NESTED)
    assert one.key == other.key
    assert hash(one.key) == hash(other.key)
    assert one.key != Grammar(SUMS).key
    assert one._language is other._language
    assert repr(one) == 'Grammar(\'start: "a" start "b" | "ab"\')'
    assert NESTED in str(one.fingerprint) or repr(NESTED) in one.fingerprint


async def test_a_product_and_genlm_controls_own_tests():
    potential = Grammar(NESTED)
    for context in (b"", b"a", b"aab", b"ab", b"b"):
        if await potential.prefix(context) > -math.inf:
            await potential.assert_logw_next_consistency(list(context))
            await potential.assert_autoreg_fact(list(context))
    await potential.assert_batch_consistency([[], list(b"ab")])
    await assert_prefix_closed(potential, ["aabb", "aba", "bab"])
    lm = ToyLM(["a", "b", "ab", "aa", "bb"], seed=4)
    for text in ("", "aa", "aab"):
        await assert_properly_weighted(AWRS(), lm("a") * potential, text, draws=500)
