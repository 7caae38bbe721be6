"""Patterns of JSON Schema are those of ECMA 262, for the mask and for the check."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from awrs_ppl.potentials import JsonSchema


def accepted(schema: Any, text: str, engine: Any) -> bool:
    """Whether a document is allowed, read byte by byte."""
    parts: list[Any] = [
        factor.potential  # pyright: ignore
        for factor in JsonSchema(schema, engine=engine).target.boolean
    ]
    states = [(part, part.start()) for part in parts]
    for byte in text.encode():
        states = [(part, part.advance(state, bytes([byte]))) for part, state in states]
        if any(state is None for _, state in states):
            return False
    return all(part.accepts(state) for part, state in states)


def matches(pattern: str, text: str) -> bool:
    """The verdict of both engines, on a value and on a key."""
    data = json.dumps(text, ensure_ascii=False)
    schema = {"pattern": pattern}
    keys = {"patternProperties": {pattern: {}}, "additionalProperties": False}
    found = {accepted(schema, data, engine) for engine in ("auto", "check")}
    found |= {accepted(keys, f"{{{data}: 1}}", engine) for engine in ("auto", "check")}
    assert len(found) == 1, (pattern, text)
    return found.pop()


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"^\d$", "07", "\u09ea\u07c0"),
        (r"^\D$", "a\u09ea", "3"),
        (r"^\w$", "aZ_9", "éŁ-ß"),
        (r"^\W$", "é-😀", "a_"),
        (r"^\s$", " \t\v\f\n\r\xa0\ufeff\u2003\u2028\u3000\u1680", "\x1c\x85\u200b\u180e"),
        (r"^\S$", "\x1c\x85\u200b", "\xa0\ufeff"),
        ("^.$", "a😀\v\x85", "\n\r\u2028\u2029"),
        ("^[^]$", "a\n\u2028", ""),
        ("[]", "", "ab"),
        (r"^\cA$", "\x01", "A"),
        (r"^\ca$", "\x01", "a"),
        (r"^[\b]$", "\b", "b"),
        (r"^\x41$", "A", "x"),
        (r"^\u00e9$", "é", "u"),
        (r"^\u{1F432}$", "🐲", "u"),
        (r"^\ud83d\udc32$", "🐲", "u"),
        (r"^[🐲-🐴]$", "🐳", "🐵"),
        (r"^\0$", "\0", "0"),
        (r"^\v$", "\v", "v"),
        (r"^[\/\-\.\]\_]$", "/-.]_", "\\"),
        (r"^\p{Lu}$", "AÉ", "aé1"),
        (r"^\P{Lu}$", "aé1", "AÉ"),
        (r"^\p{Letter}$", "éß", "1"),
        (r"^\p{digit}$", "1\u09ea", "a"),
        (r"^\p{Script=Greek}$", "αΩ", "a"),
        (r"^[\p{L}\-]$", "é-", "1"),
        (r"^[^\p{L}]$", "1-", "é"),
        ("^(?i:ß)$", "ßẞ", "s"),
        ("^(?i:k)$", "kK\u212a", "q"),
        ("^(?i:[^k])$", "q", "kK\u212a"),
        ("^(?s:.)$", "\n", ""),
        (r"^[a-]$", "a-", "b"),
        (r"^[\w-]$", "a-", "+"),
        ("^{$", "{", "}"),
        ("^]$", "]", "["),
    ],
)
def test_pattern_of_one_character_matches_as_in_ecma_262(pattern: str, yes: str, no: str):
    assert [c for c in yes if not matches(pattern, c)] == []
    assert [c for c in no if matches(pattern, c)] == []


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^abc$", ["abc"], ["abc\n", "\nabc", "a\nabc\n"]),
        ("^a|b$", ["ax", "xb"], ["xa", "bx"]),
        ("^(a$|b)", ["a", "bx"], ["ax", "xb"]),
        ("(^|,)a(,|$)", ["a", "x,a", "a,x", "x,a,y"], ["ab", "xa"]),
        ("(?m:^a$)", ["a", "x\na", "a\nx", "a\u2028"], ["xa", "ax"]),
        (r"\bé", ["aé"], ["é", " é"]),
        (r"\Ba\B", ["xax", "_a1"], ["a", "éaé", "xa"]),
        (r"^(?!.*\.\.)[a.]+$", ["a.a", "."], ["a..a", ""]),
        (r"^(?=.*\d)(?=.*[a-z]).{3,}$", ["a1b", "1ab"], ["abc", "a1"]),
        (r"(?<=\$)\d+", ["$1"], ["1", "€1"]),
        (r"(?<!\$)\b1", ["1", "€1"], ["$1"]),
        (r"^(a|b)\1$", ["aa", "bb"], ["ab", "a"]),
        (r"^(?<q>['\"]).*\k<q>$", ["'a'", '"a"'], ["'a\""]),
        (r"^(a)?\1b$", ["b", "aab"], ["ab"]),
        (r"^(?:(a)|b)\1$", ["aa", "b"], ["a", "ba"]),
        (r"^(?:([ab])\1)+$", ["aabb"], ["ab", "aab"]),
        ("^a{2}b{1,}c{0,1}$", ["aab", "aabbc"], ["ab", "aac"]),
        ("^a{,b$", ["a{,b"], ["ab"]),
        (r"^\${.*}$", ["${x}"], ["$x"]),
        ("^x*?y+?z??$", ["y", "xyz"], ["x", "xz"]),
        ("^[&&a]$", ["&", "a"], ["b"]),
        ("^$", [""], ["\n", "a"]),
        ("", ["", "a"], []),
    ],
)
def test_pattern_matches_as_in_ecma_262(pattern: str, yes: list[str], no: list[str]):
    assert [text for text in yes if not matches(pattern, text)] == []
    assert [text for text in no if matches(pattern, text)] == []


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        (r"a\Z", r"\Z is no escape of ECMA 262 at position 1, before '\\Z': write $ ("),
        (r"\Aa", "write ^ ("),
        (r"\a", r"write \x07 ("),
        (r"\h", r"write [ \t] ("),
        (r"\y", "write y without the backslash ("),
        ("(?i)a", "(?i) is not of ECMA 262 at position 1"),
        ("(?P<x>a)", "(?<name>…) for a named group"),
        ("(?>a)", "(?:…) otherwise"),
        ("(?#a)", "is not of ECMA 262"),
        ("a++", r"nothing to repeat at position 2, before '+': write \+ for the character"),
        ("a**", "nothing to repeat"),
        ("*a", "nothing to repeat"),
        ("a{,3}", "a repetition without a lower count at position 1, before '{,3}': write {0,n}"),
        ("a{3,2}", "the counts of {3,2} are out of order"),
        ("[[:alpha:]]", r"[: is not of ECMA 262 at position 1, before '[:alpha:]]': write \p{…}"),
        ("[]a]", r"write [\]…] for a set with a ]"),
        ("[z-a]", "a range out of order"),
        ("[a", r"missing ] at position 0, before '[a': write \[ for the character"),
        ("(a", "missing )"),
        ("a)", "unmatched )"),
        (r"\p{Foo}", "no property of characters is called 'Foo'"),
        (r"\pL", "no escape"),
        (r"\2(a)", "there is no group 2"),
        (r"\k<x>(?<y>a)", "there is no group 'x'"),
        (r"(?:(a)|b)*\1", r"\1 refers to a group that not every turn of a repetition sets"),
        (r"\1(a)", r"\1 stands before the end of the group that it refers to"),
        (r"(?<=(a)\1)b", "are not supported together"),
        ("a\\", r"write \\ for a backslash"),
    ],
)
def test_pattern_outside_ecma_262_raises_with_what_to_write(pattern: str, instead: str):
    for schema in ({"pattern": pattern}, {"patternProperties": {pattern: {}}}):
        with pytest.raises(ValueError, match=re.escape(instead)) as raised:
            JsonSchema(schema)
        assert f"the pattern {pattern!r} cannot be used" in str(raised.value)


# --- against the module re ------------------------------------------------------------------------

ATOMS = [
    *("a", "b", "c", "-", "1", "_", " ", r"\.", r"\d", r"\w", r"\W", r"\s", r"\S", r"\D", "[ab]"),
    *("[^a]", r"[\d_]", r"[^\w]", "[a-c1]", r"\u0062", r"\x61", "[+-]", "."),
]


def grown(rng: random.Random, depth: int) -> str:
    """A pattern that ECMA 262 and Python read alike, in ASCII."""
    kind = rng.random()
    if depth == 0 or kind < 0.35:
        return rng.choice(ATOMS)
    inner = [grown(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    if kind < 0.55:
        return "".join(inner)
    if kind < 0.7:
        return f"(?:{'|'.join([*inner, *rng.sample([''], rng.randint(0, 1))])})"
    if kind < 0.85:
        return f"(?:{inner[0]}){rng.choice(['*', '+', '?', '{2}', '{1,2}', '{0,}', '*?', '??'])}"
    if kind < 0.9:
        return rng.choice(["^", "$", r"\b", r"\B"]) + inner[0]
    if kind < 0.95:
        return inner[0] + rng.choice(["^", "$", r"\b", r"\B"])
    return f"(?{rng.choice(['=', '!'])}{inner[0]}){''.join(inner[1:])}"


def test_random_patterns_match_as_in_python_where_they_mean_the_same(fuzz: Any):
    found = 0
    for rng in fuzz.rngs(60):
        pattern = grown(rng, 4)
        # Python's \B is not in the empty text, by itself; that of ECMA 262 is.
        inside = r"(?:(?<=\w)(?=\w)|(?<!\w)(?!\w))"
        judge = re.compile(pattern.replace("$", r"\Z").replace(r"\B", inside), re.ASCII)
        texts = ["".join(rng.choices("abc-1_. \n", k=rng.randint(0, 6))) for _ in range(12)]
        for engine in ("auto", "check"):
            for text in texts:
                wanted = judge.search(text) is not None
                assert accepted({"pattern": pattern}, json.dumps(text), engine) == wanted, (
                    pattern,
                    text,
                    engine,
                )
                found += wanted
    assert found > 100
