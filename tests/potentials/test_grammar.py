"""Grammar: the texts of a grammar and their prefixes, with masks that say the same."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark
from lark.exceptions import GrammarError, LarkError

from awrs_ppl import ToyLM
from awrs_ppl.potentials.grammar import Grammar
from awrs_ppl.proposals import AWRS
from awrs_ppl.testing import assert_prefix_closed, assert_properly_weighted
from awrs_ppl.tokens.vocabulary import Vocabulary

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


def reads(judge: Lark, text: str) -> bool:
    try:
        judge.parse(text)
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
    assert done == reads(Lark(lark, parser="earley"), text)
    assert begun or not done
    state: Any = potential.start()
    for at in range(len(data)):
        if state is not None:
            state = potential.advance(state, data[at : at + 1])
        assert state == potential.advance(potential.start(), data[: at + 1])
        # Once rejected, always rejected.
        assert (state is not None) or not begun


def test_prefixes_of_texts_are_allowed():
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
def test_masks_along_random_walks_agree_with_advance(lark: str, data: st.DataObject):
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


def test_mask_of_a_single_text_allows_every_spelling():
    tokens = Vocabulary([b"h", b"he", b"hello", b"lo", b"l", b"<end>"], ends=[5])
    for header in ("", "%llguidance {}\n", '%llguidance {"no_forcing": false}\n'):
        mask = Grammar(f'{header}start: "hello"').mask(b"", tokens)
        assert mask.tolist() == [True] * 3 + [False] * 3


def texts_over(pieces: list[str], most: int) -> Iterator[str]:
    for length in range(most + 1):
        for chosen in itertools.product(pieces, repeat=length):
            yield "".join(chosen)


IGNORING = [
    ('start: "a" "b"\n%ignore / +/', ["a", "b", " ", "c"], 5),
    ('start: "a"*\n%ignore " "', ["a", " ", "\n"], 5),
    ('start: "a" x?\nx: "b" start\n%ignore WS\n%import common.WS', ["a", "b", " ", "\n"], 5),
    ('%ignore " "\n%ignore COMMENT\nCOMMENT: "{" /[^}]*/ "}"\nstart: "a" "bc"', [*"a{} ", "bc"], 5),
    ('start: WORD+\nWORD: /[a-b]+[0-1]*/\n%ignore " "\n  | /<.*?>/', [*"a0 <>"], 5),
    (
        '?start: (_x ";")+\n_x: start_x\nstart_x: "start"\n%ignore /#[^\\n]*/',
        ["start", ";", "#", "\n"],
        5,
    ),
]


@pytest.mark.parametrize(("lark", "pieces", "most"), IGNORING)
@pytest.mark.parametrize("options", [{"parser": "earley"}, {"parser": "lalr"}], ids=str)
def test_ignored_text_is_allowed_where_lark_ignores_it(
    lark: str, pieces: list[str], most: int, options: dict[str, Any]
):
    try:
        judge = Lark(lark, **options)
    except GrammarError:
        pytest.skip("no LALR(1) grammar")
    potential, accepted = Grammar(lark), 0
    for text in texts_over(pieces, most):
        expected = reads(judge, text)
        assert verdict(potential, text.encode())[1] == expected, text
        if expected:
            accepted += 1
            assert all(verdict(potential, text[:end].encode())[0] for end in range(len(text)))
    assert accepted > 1


@pytest.mark.parametrize(
    ("lark", "pieces"),
    [
        ('start: S S\nS: /".*?"/\n%ignore " "', [*'"a ']),
        ('start: "(" /.*?;/ ")"', [*"();a"]),
        ("%import common.ESCAPED_STRING\nstart: ESCAPED_STRING+", [*'"a\\\n']),
        ("%import common (INT, ESCAPED_STRING)\nstart: ESCAPED_STRING | INT", [*'"1\\\n']),
        ("%import common.ESCAPED_STRING -> STRING\nstart: STRING", [*'"a\\\n']),
        ('start.2: A | B\nA.-1: "a"\nB.3: "ab"', [*"ab"]),
        ('start: "a" // one\n  # two\n\n  | "b" "#" // three', [*"ab#/"]),
        ('start: ["a"] "b"~2 ("c" | "d")~1..2 "E"i~0..1 "f".."g"', [*"abcdeEf"]),
    ],
)
def test_syntax_that_llguidance_reads_otherwise_is_read_as_by_lark(lark: str, pieces: list[str]):
    judge, potential = Lark(lark, parser="earley"), Grammar(lark)
    for text in texts_over(pieces, 6 if len(pieces) < 6 else 4):
        assert verdict(potential, text.encode())[1] == reads(judge, text), text


def test_longest_terminal_is_taken_and_must_be_finished():
    lark = 'start: "a" "ab" | "aa" "c"'
    assert reads(Lark(lark, parser="earley"), "aab")
    assert not reads(Lark(lark, parser="lalr"), "aab")
    assert verdict(Grammar(lark), b"aac") == (True, True)
    assert verdict(Grammar(lark), b"aab") == (False, False)
    lark = 'start: /[0-9]+(\\.[0-9]+)?/ "."'
    assert reads(Lark(lark, parser="lalr"), "1.")
    assert verdict(Grammar(lark), b"1.5.") == (True, True)
    assert verdict(Grammar(lark), b"1.") == (True, False)


@pytest.mark.parametrize("blank", ['" "', "BLANK"])
def test_ignored_terminal_is_never_found_as_in_larks_lalr(blank: str):
    lark = f'start: "a" {blank} "b"\nBLANK: / /\n%ignore / +/'
    judge = Lark(lark, parser="lalr")
    for text in texts_over(["a", "b", " "], 4):
        assert not reads(judge, text)
        assert not verdict(Grammar(lark), text.encode())[1]


# No terminal is a prefix of another, so that both parsers find the same terminals.
TERMINALS = {
    "A": ('"a"', ["a"]),
    "B": ("/b+/", ["b"]),
    "C": ('"cd"', ["cd", "c"]),
    "D": ('"D"i', ["d", "D"]),
    "N": ("/[0-1]+/", ["0", "1"]),
    "X": ('"x".."z"', ["x", "z"]),
    "E": ('"e" "f"~1..2', ["e", "f"]),
}
IGNORED = {
    '%ignore " "': [" "],
    "%ignore / +/": [" "],
    'BRACES: "{" /[^}]*/ "}"\n%ignore BRACES': ["{", "{a}"],
    "%ignore /<.*?>/": ["<", "<a>", "<<>"],
    "%import common.WS\n%ignore WS  # blanks": ["\n", " "],
}


def an_item(rng: random.Random, used: set[str], depth: int) -> str:
    kind = rng.random()
    if depth and kind < 0.2:
        return f"({alternatives(rng, used, depth - 1)})"
    if depth and kind < 0.5:
        return an_item(rng, used, 0) + rng.choice(["?", "*", "+", "~2", "~1..2"])
    if kind < 0.6:
        return rng.choice(["one", "two"])
    used.add(name := rng.choice([*TERMINALS]))
    return name if rng.random() < 0.5 or name == "E" else TERMINALS[name][0]


def alternatives(rng: random.Random, used: set[str], depth: int) -> str:
    return " | ".join(
        " ".join(an_item(rng, used, depth) for _ in range(rng.choice([1, 1, 2, 3])))
        for _ in range(rng.choice([1, 1, 2]))
    )


def random_grammar(rng: random.Random) -> tuple[str, list[str]]:
    """A grammar in Lark's syntax, and pieces of its texts."""
    used: set[str] = set()
    lines = [
        f"{rng.choice(['', '?', '!'])}start{rng.choice(['', '.2'])}: " + alternatives(rng, used, 2)
    ]
    for rule in ("one", "two"):
        lines.append(f"{rule}: {alternatives(rng, used, 1)}{rng.choice(['', ' -> name'])}")
        lines[-1] += rng.choice(["", "", "  // words\n  | " + alternatives(rng, used, 1)])
    ignored = rng.sample([*IGNORED], rng.choice([0, 1, 1, 2]))
    lines += [*ignored, *(f"{name}: {TERMINALS[name][0]}" for name in sorted(used))]
    rng.shuffle(lines)
    pieces = [piece for name in sorted(used) for piece in TERMINALS[name][1]]
    return "\n".join(lines), [*pieces, *(piece for line in ignored for piece in IGNORED[line])]


def test_random_grammars_have_the_texts_that_lark_parses(fuzz: Any):
    for rng in fuzz.rngs(60):
        lark, pieces = random_grammar(rng)
        try:
            judge = Lark(lark, parser="earley")
        except LarkError:
            continue  # a rule without an end, a name twice
        potential = Grammar(lark)
        for _ in range(40 if pieces else 0):
            text = "".join(rng.choice(pieces) for _ in range(rng.randrange(7)))
            done = verdict(potential, text.encode())[1]
            assert done == reads(judge, text), (lark, text)
            for end in range(len(text) if done else 0):
                assert verdict(potential, text[:end].encode())[0], (lark, text[:end])


def test_rule_without_an_end_is_a_dead_end():
    potential = Grammar('start: "a" x | "b"\nx: x x')
    assert verdict(potential, b"b") == (True, True)
    assert verdict(potential, b"a") == (True, False)
    assert not potential.mask(b"a", TOKENS).any()
    assert verdict(potential, b"ab") == (False, False)


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
        ('start: x{"a"}\nx{t}: t t', "write the rule out for each of its arguments"),
        ('%declare X\nstart: X "a"', "define the terminal"),
        ("%import python.NAME\nstart: NAME", "Unknown common regex.*write the terminal out"),
        ("start: 'a'", "strings stand in double quotes"),
        ('S: /a.*?b+/ "c"\nstart: S', "lazy repeat is understood only before one fixed text"),
        ('S: /a.*?b/ "c"\nstart: S', "lazy repeat is understood only before one fixed text"),
    ],
)
def test_grammar_that_does_not_compile_raises_with_the_reason(lark: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        Grammar(lark)
    assert str(caught.value).startswith(f"Grammar({lark.strip()!r:.12}")


@pytest.mark.parametrize(
    "lark", ["start: foo", 'start: foo # bar\n%ignore " " // blanks\n', "\nstart: foo"]
)
def test_messages_show_the_lines_that_were_written(lark: str):
    with pytest.raises(ValueError, match='unknown name: "foo"') as caught:
        Grammar(lark)
    shown = [line.split(" | ", 1) for line in str(caught.value).split("\n") if " | " in line]
    lines = lark.split("\n")
    assert [text for _, text in shown] == [lines[int(number) - 1] for number, _ in shown]
    at = next(i for i, line in enumerate(lines) if "foo" in line) + 1
    assert f"at {at}(8)" in str(caught.value)


def test_string_that_looks_like_a_token_is_text():
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


async def test_grammar_passes_the_tests_of_genlm_control():
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
