"""Prefixes of matches: against all short texts that `regex.fullmatch` and `re.fullmatch` match."""

from __future__ import annotations

import itertools
import math
import random
import re
from typing import Any

import pytest
import regex

from awrs_ppl import ToyLM
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials import Regex
from awrs_ppl.potentials.regex.prefix import relax
from awrs_ppl.potentials.regex.syntax import Unreadable, parse
from awrs_ppl.potentials.regex.tree import write
from awrs_ppl.testing import enumerate_posterior


def texts(alphabet: str, longest: int) -> list[str]:
    return [
        "".join(letters)
        for length in range(longest + 1)
        for letters in itertools.product(alphabet, repeat=length)
    ]


def prefixes(matches: set[str]) -> set[str]:
    return {text[:end] for text in matches for end in range(len(text) + 1)}


def allowed(potential: Regex, among: list[str]) -> set[str]:
    return {text for text in among if potential.advance(b"", text.encode()) is not None}


def accepted(potential: Regex, among: set[str]) -> set[str]:
    return {text for text in among if potential.accepts(text.encode())}


def unclosed(among: set[str]) -> set[str]:
    return {text for text in among if text and text[:-1] not in among}


def both_engines(pattern: str) -> list[Regex]:
    potentials = [Regex(pattern, engine="check")]
    if Regex(pattern).engine == "mask":
        potentials.append(Regex(pattern, engine="mask"))
    return potentials


# Patterns by their alphabet, of whose prefixes exactly those of matches are allowed.
LAZY = r".+?(?<=\.)", r"[ab., ]+?(?<!,)", r"[^.]+?(?<!,)\.", r".*?(?<=[ab])"
ORDERED = "(?>a*?)b", "(?>a+?)b", "(?>a{1,3}?)b", "(?>.*?)a.*", "(?>(?:ab)*?)b", "(?>a|ab)c|abb"
BEHIND = "[abc]+(?<!a|bc)", "(?<!ab)c|abc", "(?:ab)+(?<!^ab)", "[ab]{2}(?<=a.*)"
AHEAD = "(?=.*b)a+.*", "(?!.*ab)[ab]+", "(?!abc|b)[abc]{3}", "a(?!b(?!c))[bc]+"
REFERENCES = r"(a|b)+\1", r"(.)(.)\2\1", r"(ab?)\1", r"(?|(a)|(b))\1", "(?<x>a)(?P=x)"
CONDITIONS = "(a)?(?(1)b|c)", "(?<x>a)?b(?(x)c|a)", "(?(?=a)ab|c)", "a?(?(?<=a)b|c)"
EXACT = [
    ("ab.,", *LAZY),
    ("ab", "a*?b", "(?:ab)+?a", "a{1,2}?b", "(?:a|b){2}?b", "a??b", ".*?ab"),
    ("abc", *ORDERED),
    ("abc", "a++b", "a?+b", "(?>a|ab)c", "(?>ab|a)b", "(?:a|bc)*+b?", "(?>a++|b)c"),
    ("ab", r"(?>(?:a\b|ab))(?<=b)"),
    ("abc", *BEHIND, r"(?<=(?:ab){1,2})c|abab(?<=(?:ab){1,2})c"),
    ("abc", *AHEAD),
    ("ab", r"(?!.*(.)\1)[ab]+", r"(?=(a|ab))\1b", r"(?=((\w)\2+))\1", r"(?:a(?!b))+"),
    ("ab\n", r"[ab]+(?=$)", r"[ab]+(?!.)\n?"),
    ("ab ", r"\b[ab ]+\b", r"a\B[ab]+|b\b a", r"\m\w+\M \w", r"^a$", r"\Aab\Z"),
    ("ab\n", "ab$", "ab$\n?", "(?m)(?:^a+$\n?)+", "a(?:$|b)\n?", r"\Ga+|a\Kb"),
    ("abc", *CONDITIONS),
    ("ab", "[ab]{2}(?<!a(?:a|b)++)", "[ab]{2}(?<=b(?>a*))"),
    ("ab", "b?(?<!(?(?!a)b|a))ab", "b?(?<=(?(?=a)b|a))a?b", "a?(?<!(?(?<!a)b|ab))b+"),
    ("ab", *REFERENCES, "(?(DEFINE)(?<x>ab?))(?&x)a"),
    ("kK\u212a", "(?i)k+", "(?i:k)k", r"(?i)(k)\1", "(?-i)kK"),
    ("sSß\u017f", "(?i)s+ß", "(?fi)ss", "(?fi)aß|sß", r"(?fi)(ß)\1", "(?V1i)ßs"),
    ("ab", "a(*PRUNE)b|aa", "(?:a|ab)(?:b(*SKIP)a|bb)", "a(?:b(*FAIL)|b)"),
    ("ab", "(?:ab){e<=1}", "(?:ab){s<=1}b", "(?b)(?:ab){i<=1}"),
    ("ae\u0301", r"\Xa"),
    ("a\r\n", r"\R+a", r"\R(?!\n)a", r"(?w)a$", "(?s)a."),
    ("ab ", "(?x) a + # one [\n b | (?-x: a)"),
    ("ab", "a(?m){2}b", "(?x)a(?m)(?i) *b"),
    ("abc", r"(?V1)[[ab]--b]+b"),
    ("ab", "(?p)(?:a|ab)(?:b|ba)?"),
]


@pytest.mark.parametrize(
    ("pattern", "alphabet"), [(pattern, row[0]) for row in EXACT for pattern in row[1:]]
)
def test_regex_prefixes_are_exactly_those_of_matches(pattern: str, alphabet: str) -> None:
    every = texts(alphabet, 8 if len(alphabet) < 3 else 7 if len(alphabet) < 4 else 5)
    whole = regex.compile(pattern)
    matches = {text for text in every if whole.fullmatch(text)}
    assert matches
    short = [text for text in every if len(text) <= len(every[-1]) - 3]
    for potential in both_engines(pattern):
        found = allowed(potential, every)
        assert accepted(potential, found) == matches
        assert not prefixes(matches) - found
        assert not unclosed(found)
        # A text of this length is completed within the longest of all texts, if ever.
        assert {text for text in short if text in found} == prefixes(matches) & set(short)


# Here some texts are allowed that cannot be completed, or that must become long.
LOOSE = [
    ("[ab]{2}(?<!a(?>a+|b))", "ab"),
    ("a(?R)?b", "ab"),
    ("(?<x>a|b(?&x)a)", "ab"),
    ("(a|b(?1)?a)b", "ab"),
    ("(?:a|bb){1<=e<=2}", "ab"),
    (r"(?=(a*?))\1b", "ab"),
    (r"(?<!\Xa)\w+", "ae\u0301"),
    (r"\X(?<=\u0301)a", "ae\u0301"),
    (r"(?w)\b[a.b]+\b", "a.b"),
    (r"(?mw)(?:^a?$\r?\n?)+", "a\r\n"),
    (r"(?fi)(?!ss)\w+", "sSß\u017f"),
    (r"(\w+)(?<=\1)(?!\1)\w", "ab"),
    (r"(?=(?:ab){e<=1})\w+", "abc"),
    (r"(?:(?=a)ab){e<=1}", "abc"),
    (r"(?!(?>ab|a)b)[ab]*", "ab"),
    (r"(?>a$|a\n)b?", "ab\n"),
    (r"(?=(?>a$|a\n)b?).*", "ab\n"),
    (r"[ab]*(?<!a$)", "ab\n"),
    (r"(?(?=(a))\1b|b\b)", "ab"),
    (r"(?=(?<x>a+))(?&x)b", "ab"),
    (r"(?!a(?R)b)[ab]+", "ab"),
    (r"(?!(?>(a)\b)b)(.)\2+", "ab"),
    (r"(?!(?(?=(a)b)b|c))([ab])\2", "ab"),
    (r"(?:(a)*?b){e<=1}\1?", "ab"),
    (r"(?>(?(?=(?:ab){e<=1})a|b))b?", "ab"),
    (r"b(?>(?:){1<=e<=2}|a){2,3}", "ab"),
    (r"(?<=(?:){i<=1}|a)b|ab", "ab"),
    (r"(?:ab)*\Ga?|a", "ab"),
    (r"(*PRUNE)a(?(?!a)|c)(?:b){1,2}?", "ab"),
    (r"(?!(?:aa|b.*)(?<!aab?)ab)(?:^|b+a)", "ab"),
    (r"k(?(?<!Kk|)(?i)|b)|ka", "kKa"),
]


@pytest.mark.parametrize(("pattern", "alphabet"), LOOSE)
def test_regex_never_rejects_a_prefix_of_a_match(pattern: str, alphabet: str) -> None:
    every = texts(alphabet, 6 if len(alphabet) < 4 else 4)
    whole = regex.compile(pattern)
    matches = {text for text in every if whole.fullmatch(text)}
    found = allowed(Regex(pattern), every)
    assert matches
    assert not prefixes(matches) - found
    assert accepted(Regex(pattern), found) == matches
    assert not unclosed(found)


class Maker:
    """Random patterns over an alphabet: `regex` does not compile all of them."""

    FLAGS = (
        *([""] * 8),
        *("(?m)", "(?s)", "(?i)", "(?a)", "(?w)", "(?x)", "(?p)", "(?b)", "(?e)", "(?V1)", "(?fi)"),
        *("(?V1i)", "(?mw)", "(?ms)", "(?is)"),
    )
    ONE = (
        *(r"\w", r"\W", r"\s", r"\S", "[ab]", "[^a]", r"[^\n]", "[[:alpha:]]", r"\p{L}", r"\X"),
        *(r"\R", "."),
    )
    ASSERTIONS = ("^", "$", "$", r"\A", r"\Z", r"\b", r"\B", r"\m", r"\M", r"\G", r"\K")
    LOOKS = ("?=", "?!", "?<=", "?<!")
    COUNTS = ("*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "{0}", "{2,3}")
    ERRORS = ("{e<=1}", "{s<=1}", "{i<=1}", "{d<=1}", "{1<=e<=2}", "{s<=1,i<=1}", "{2i+1s<=3}")

    def __init__(self, rng: random.Random, alphabet: str) -> None:
        self.rng = rng
        self.alphabet = alphabet
        self.groups = self.looks = 0
        # Most patterns have none of these.
        self.calls, self.errors, self.verbs = (rng.random() < 0.15 for _ in range(3))

    def pattern(self) -> str:
        return self.rng.choice(self.FLAGS) + self.choice(self.rng.choice((2, 3, 3, 4)))

    def choice(self, depth: int) -> str:
        return "|".join(self.sequence(depth) for _ in range(self.rng.choice((1, 1, 1, 1, 2, 2, 3))))

    def sequence(self, depth: int) -> str:
        return "".join(self.part(depth) for _ in range(self.rng.choice((0, 1, 1, 2, 2, 3))))

    def part(self, depth: int) -> str:
        rng = self.rng
        kinds: dict[Any, int] = {self.one: 35}
        if depth > 0:
            kinds |= {self.group: 23, self.look: 14, self.atomic: 6, self.condition: 4}
            kinds |= {self.assertion: 10, self.flags: 2, self.reference: 4}
            kinds |= {self.call: 5 * self.calls, self.fuzzy: 5 * self.errors}
            kinds |= {self.verb: 4 * self.verbs}
        return rng.choices(list(kinds), list(kinds.values()))[0](depth - 1)

    def repeated(self, part: str) -> str:
        if self.rng.random() < 0.5:
            return part
        return part + self.rng.choice(self.COUNTS) + self.rng.choice(("", "", "?", "+"))

    def one(self, depth: int) -> str:
        letters = [r"\n" if letter == "\n" else letter for letter in self.alphabet]
        if self.rng.random() < 0.2:
            return self.repeated(self.rng.choice(self.ONE))
        if self.rng.random() < 0.2:
            return letters[0] * 2
        return self.repeated(self.rng.choice(letters))

    def group(self, depth: int) -> str:
        head = self.rng.choice(("(?:", "(?:", "(", "(", "(?<n{}>", "(?|", "(?i:", "(?-i:", "(?s:"))
        inner = self.choice(depth)
        self.groups += head in ("(", "(?<n{}>")
        return self.repeated(f"{head.format(self.groups)}{inner})")

    def look(self, depth: int) -> str:
        self.looks += 1
        inner = self.choice(depth)
        self.looks -= 1
        return f"({self.rng.choice(self.LOOKS)}{inner})"

    def atomic(self, depth: int) -> str:
        return self.repeated(f"(?>{self.choice(depth)})")

    def condition(self, depth: int) -> str:
        test = f"{self.rng.choice(self.LOOKS)}{self.choice(depth)}"
        if self.groups and self.rng.random() < 0.5:
            test = str(self.rng.randint(1, self.groups))
        elif self.looks:
            # Here `regex` itself is wrong: `(?<=(?(?!)|a?b))`, which reads nothing, matches "ab".
            return self.group(depth)
        return f"(?({test}){self.sequence(depth)}|{self.sequence(depth)})"

    def reference(self, depth: int) -> str:
        number = self.rng.randint(1, max(1, self.groups))
        return self.repeated(self.rng.choice((rf"\{number}(?:)", rf"\g<{number}>")))

    def call(self, depth: int) -> str:
        number = self.rng.randint(1, max(1, self.groups))
        return self.rng.choice((f"{self.alphabet[0]}(?R)?", f"(?{number})"))

    def assertion(self, depth: int) -> str:
        return self.rng.choice(self.ASSERTIONS)

    def flags(self, depth: int) -> str:
        return self.rng.choice(("(?i)", "(?s)", "(?m)", "(?#)"))

    def fuzzy(self, depth: int) -> str:
        return f"(?:{self.choice(min(depth, 1))}){self.rng.choice(self.ERRORS)}"

    def verb(self, depth: int) -> str:
        return self.rng.choice(("(*PRUNE)", "(*SKIP)", "(*FAIL)"))


ALPHABETS = ("ab", "ab\n", "abé", "sSß", "kK\u212a", "ae\u0301", "a\r\n", "a.b", "b \n")


def compiled(pattern: str) -> regex.Pattern[str] | None:
    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError):
        return None


@pytest.mark.filterwarnings("ignore")
def test_random_patterns_never_reject_a_prefix_of_a_match(fuzz: Any) -> None:
    tried = 0
    for rng in fuzz.rngs(1000):
        alphabet = rng.choice(ALPHABETS)
        pattern = Maker(rng, alphabet).pattern()
        if len(pattern) > 80 or not (whole := compiled(pattern)):
            continue
        regex.compile(relax(parse(pattern)))
        every = texts(alphabet, 5 if len(alphabet) < 3 else 4)
        try:
            matches = {text for text in every if whole.fullmatch(text, timeout=0.5)}
            found = {potential: allowed(potential, every) for potential in both_engines(pattern)}
        except (TimeoutError, MemoryError, PotentialError):
            continue  # it backtracks or calls itself without end
        tried += 1
        for potential, partial in found.items():
            assert not prefixes(matches) - partial, potential
            assert accepted(potential, partial) == matches, potential
            assert not unclosed(partial), potential
    assert tried > 400


@pytest.mark.filterwarnings("ignore")
def test_random_patterns_written_from_their_trees_match_the_same_texts(fuzz: Any) -> None:
    for rng in fuzz.rngs(300):
        alphabet = rng.choice(ALPHABETS)
        pattern = Maker(rng, alphabet).pattern()
        if len(pattern) > 80 or not (whole := compiled(pattern)):
            continue
        again = regex.compile(write(parse(pattern).tree))
        for text in texts(alphabet, 3):
            try:
                same = bool(whole.fullmatch(text, timeout=0.5))
                assert bool(again.fullmatch(text, timeout=0.5)) == same, pattern
            except (TimeoutError, MemoryError):
                break


@pytest.mark.parametrize("pattern", [*LAZY, r".+(?<=\.)", "(?!.*,)[ab.,]+?b"])
def test_regex_accepts_what_the_standard_library_matches(pattern: str) -> None:
    every = texts("ab.,", 5)
    matches = {text for text in every if re.fullmatch(pattern, text)}
    found = allowed(Regex(pattern), every)
    assert prefixes(matches) <= found
    assert accepted(Regex(pattern), found) == matches


@pytest.mark.parametrize("pattern", [*LAZY, "(?!.*,)[ab.,]+?b"])
async def test_regex_evidence_is_that_of_all_texts(pattern: str) -> None:
    weights = {"a": 3, "b": 3, ".": 2, ",": 2}
    lm = ToyLM(list(weights), weights=lambda context: [3, 3, 2, 2, 2])  # the last is the end

    async def model(ctx: Any) -> str:
        return await ctx.generate(lm("x") * Regex(pattern), max_tokens=4)

    true = sum(
        math.prod(weights[letter] / 12 for letter in text) * 2 / 12
        for text in texts("ab.,", 3)
        if re.fullmatch(pattern, text)
    )
    assert math.exp((await enumerate_posterior(model)).log_ml) == pytest.approx(true)


def test_parse_with_an_unknown_syntax_raises() -> None:
    for pattern in (r"\L<words>", "a)", "(?<x", "(?~a)", "*a", r"a[b"):
        with pytest.raises(Unreadable):
            parse(pattern)


@pytest.mark.parametrize("depth", [50, 100])
def test_regex_nested_deeply_allows_the_prefixes_of_matches(depth: int) -> None:
    for engine in ("auto", "check"):
        potential = Regex("(?:a" * depth + "b" + ")" * depth, engine=engine)
        assert potential.advance(b"", b"a" * depth) is not None
        assert potential.accepts(b"a" * depth + b"b")
