"""Regex: masks and checks agree with `regex.fullmatch`, token by token and byte by byte."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLTokenizer

from awrs_ppl._recent import Recent
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials import _llguidance
from awrs_ppl.potentials.regex import Regex
from awrs_ppl.potentials.regex import regex as module
from awrs_ppl.tokens.vocabulary import Vocabulary

# A pattern, its engine, and texts that match.
PATTERNS: list[tuple[str, str, list[str]]] = [
    (r"^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2})$", "mask", ["00:1b:44-11:3A:b7"]),
    (r"^\d{4}-\d{2}-\d{2}$", "mask", ["2024-02-30", "٣٣٣٣-00-११"]),
    (r"(?<protocol>https?)://(?<domain>[^/]+)", "mask", ["http://a", "https://你好.é😀"]),
    (r"^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$", "mask", ["-1.5e+10", "0"]),
    (r"^(?:[01]{8}|\d{3})$", "mask", ["01010101", "123"]),
    (r"[\p{Greek}--\p{Uppercase}]", "mask", ["\u03b1", "-", "A"]),
    (r"[^]^[]+-", "check", ["a-", "ab-"]),
    (r"(?i)[^\W\d_]{1,3}k", "mask", ["\u017f\u212a", "éßK"]),
    (r"(?s)^a.*?[[:punct:]]\Z", "mask", ["a\n\n.", "a你,"]),
    (r"(?a)\w+\s\D?", "mask", ["abc_1 ", "a\té"]),
    (r"\Aa\/[]{2}]?|^(b|^$)", "check", ["a/", "a/]", "b", ""]),
    (r"^(\w)(\w)(\w)\3\2\1$", "check", ["abccba", "你é11é你"]),
    (r"\b(?!word)\w+\b", "check", ["wor", "sword"]),
    (r"^(?>a+)(?>\d+)$", "check", ["aa12"]),
    (r"^(a|b(?1)?é)$", "check", ["a", "bbaéé"]),
    (r"(?<!\d{3})abc(?!\d{3})", "check", ["abc"]),
    (r"(a)?(?(1)B|C)", "check", ["aB", "C"]),
    (r"foo\Bbar|foo\b \bbar", "check", ["foobar", "foo bar"]),
    (r"^(?!$)a(?!$)\n?b$", "check", ["ab", "a\nb"]),
    (r"(?m)(?:^\w+$\n?)+", "check", ["a\nb", "ab\n"]),
    (r"(?x) a  b # [ $ \b", "check", ["ab"]),
    (r"\w++-\w+", "check", ["ab-c"]),
    (r"(?iV1)[[a-z]--[aeiou]]+ß?(?#\b[)\b", "check", ["xySS", "b"]),
    (r"(?:foo){e<=1}!", "check", ["foo!", "fo!", "fxo!"]),
]
LETTERS = "aábkK\u212aß你😀1. \n"


def begins(pattern: str, text: str) -> bool:
    return regex.fullmatch(pattern, text, partial=True) is not None


def ends(pattern: str, text: str) -> bool:
    return regex.fullmatch(pattern, text) is not None


def verdict(potential: BooleanPotential, data: bytes) -> tuple[bool, bool]:
    """Whether an allowed text has this prefix, and whether it is one."""
    state = potential.advance(potential.start(), data)
    return state is not None, state is not None and bool(potential.accepts(state))


def contract_errors(potential: BooleanPotential, data: bytes) -> list[str]:
    """What is wrong with a potential along one text, byte by byte."""
    errors = []
    state: Any = potential.start()
    alive = potential.advance(state, b"") is not None
    for at in range(len(data)):
        begun, done = verdict(potential, data[:at])
        if done and not begun:
            errors.append(f"ends but does not begin: {data[:at]!r}")
        if begun != alive:
            errors.append(f"by bytes {alive}, at once {begun}: {data[:at]!r}")
        if not begun and verdict(potential, data[: at + 1])[0]:
            errors.append(f"not prefix-closed: {data[: at + 1]!r}")
        if alive:
            state = potential.advance(state, data[at : at + 1])
            alive = state is not None
    if alive != verdict(potential, data)[0]:
        errors.append(f"by bytes {alive}, not at once: {data!r}")
    return errors


def mask_errors(potential: BooleanPotential, state: Any, vocabulary: Vocabulary) -> list[int]:
    """The tokens whose bit in the mask is not what `advance` says."""
    mask = potential.mask(state, vocabulary)
    assert mask.shape == (vocabulary.size,)
    assert mask.dtype == np.bool_
    expected = np.zeros(vocabulary.size, dtype=bool)
    for i in vocabulary.text_ids.tolist():
        expected[i] = potential.advance(state, vocabulary.tokens[i]) is not None
    return np.flatnonzero(mask != expected).tolist()


NI, SMILE = "你".encode(), "😀".encode()
AWKWARD = Vocabulary(
    [
        *(b"a", b"ab", b"a", b"b", b"k", b"1", b"11", b".", b"\n", b" ", b"a ", b"-", b"A"),
        *(b"", b"\xff", b"\xff[0]", b"\xc3", b"\xc0\xaf", b"\x80", b"\xed\xa0\x80", b"\x00"),
        *(NI, NI[:1], NI[:2], NI[1:], NI[2:], NI[2:] + b"a", b"a" + NI[:2], NI[2:] + NI[:1]),
        *(SMILE, SMILE[:1], SMILE[:2], SMILE[:3], SMILE[1:], SMILE[3:], "é".encode(), b"\xa9"),
        *(b"<start>", b"a", b"<end>", b"b", b"://", b"http", b"https:/"),
    ],
    ends=[38, 39],
    special=[36, 37, 14],
    size=50,
)


def mutations(text: str) -> st.SearchStrategy[str]:
    """The text, cut somewhere, with a few characters replaced or put in."""
    edit = st.tuples(
        st.integers(0, len(text)), st.integers(0, 1), st.sampled_from([*LETTERS, *text, ""])
    )

    def apply(edits: list[tuple[int, int, str]], cut: int) -> str:
        mutated = text
        for at, gone, new in edits:
            mutated = mutated[:at] + new + mutated[at + gone :]
        return mutated[:cut]

    return st.builds(apply, st.lists(edit, max_size=3), st.integers(0, len(text) + 3))


CASES = st.sampled_from(PATTERNS).flatmap(
    lambda case: st.tuples(
        st.just(case[0]), st.sampled_from(case[2]).flatmap(mutations), st.just(case[1])
    )
)

ATOMS = [
    *("a", "b", "k", "é", "你", "😀", "", ".", r"\.", r"\n", r"\x61", r"\u4f60", "[ab]", "[^a]"),
    *(r"\w", r"\W", r"\d", r"\s", "[a-c]", "[[:alpha:]1]", r"[^\w]", r"\p{Lu}", r"[a\-\]]"),
]
COUNTS = ["*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}", "{0}"]


def regular(flags: str) -> st.SearchStrategy[tuple[str, str]]:
    """Regular patterns, each with one without lazy repetitions.

    Prefixes are compared with the second: to `regex` any text is a prefix for `a*?b`.
    """
    atoms = st.sampled_from([(atom, atom) for atom in ATOMS])

    def grow(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        def joined(first: tuple[str, str], second: tuple[str, str], form: str) -> tuple[str, str]:
            return form.format(first[0], second[0]), form.format(first[1], second[1])

        def repeated(part: tuple[str, str], count: str, lazy: str) -> tuple[str, str]:
            return f"(?:{part[0]}){count}{lazy}", f"(?:{part[1]}){count}"

        forms = st.sampled_from(["{}{}", "(?:{}|{})", "({}|{})"])
        return st.builds(joined, inner, inner, forms) | st.builds(
            repeated, inner, st.sampled_from(COUNTS), st.sampled_from(["", "?"])
        )

    ends = st.sampled_from([("{}", ""), ("^{}", "$"), (r"\A{}", r"\Z")])

    def framed(part: tuple[str, str], end: tuple[str, str]) -> tuple[str, str]:
        head = flags + end[0].format("(?:")
        return f"{head}{part[0]}){end[1]}", f"{head}{part[1]}){end[1]}"

    return st.builds(framed, st.recursive(atoms, grow, max_leaves=8), ends)


REGULAR = st.sampled_from(["", "", "(?i)", "(?s)", "(?a)", "(?is)"]).flatmap(regular)


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(REGULAR, st.lists(st.text(LETTERS, max_size=6), min_size=1, max_size=8))
def test_random_regular_patterns_agree_with_regex(patterns: tuple[str, str], texts: list[str]):
    pattern, greedy = patterns
    masked, checked = Regex(pattern), Regex(pattern, engine="check")
    assert masked.engine == "mask"
    for text in texts:
        data = text.encode()
        begun, done = verdict(masked, data)
        assert done == ends(pattern, text)
        assert begun == begins(greedy, text)
        assert verdict(checked, data) == (begun, done)
        assert contract_errors(masked, data) == []


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(CASES)
def test_patterns_agree_with_regex(case: tuple[str, str, str]):
    pattern, text, engine = case
    potential, checked = Regex(pattern), Regex(pattern, engine="check")
    assert potential.engine == engine
    data = text.encode()
    assert contract_errors(potential, data) == []
    assert contract_errors(checked, data) == []
    begun, done = verdict(potential, data)
    assert done == verdict(checked, data)[1] == ends(pattern, text)
    assert verdict(checked, data)[0] >= begun >= done
    if engine == "mask":
        assert begun == begins(pattern.replace("*?", "*"), text)
    assert asyncio.run(potential.prefix(data)) == (0.0 if begun else -math.inf)
    assert asyncio.run(potential.complete(data)) == (0.0 if done else -math.inf)


@pytest.mark.parametrize(("pattern", "engine", "matches"), PATTERNS)
def test_prefixes_of_matches_are_allowed(pattern: str, engine: str, matches: list[str]):
    for text in matches:
        assert ends(pattern, text)
        for potential in (Regex(pattern), Regex(pattern, engine="check")):
            data = text.encode()
            assert verdict(potential, data) == (True, True)
            for at in range(len(data)):
                assert verdict(potential, data[:at])[0], (potential, data[:at])


MASKED = [
    *(case[0] for case in PATTERNS if case[1] == "mask"),
    *("aba", "a你😀", r"[^a]*", r"(?s).*", "(你|a)+😀?", r"(?:ab|a\.)*(?:1{2,}|é)", "", r"[\x00a]"),
]


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.sampled_from(MASKED), st.data())
def test_masks_along_random_walks_agree_with_advance(pattern: str, data: st.DataObject):
    potential = Regex(pattern, engine="mask")
    state: Any = potential.start()
    for _ in range(6):
        assert mask_errors(potential, state, AWKWARD) == []
        mask = potential.mask(state, AWKWARD)
        assert not mask[~AWKWARD.is_text].any()
        if not mask.any():
            break
        token = data.draw(st.sampled_from(np.flatnonzero(mask).tolist()))
        state = potential.advance(state, AWKWARD.tokens[token])


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(REGULAR)
def test_masks_of_random_patterns_agree_with_advance(patterns: tuple[str, str]):
    potential = Regex(patterns[0])
    for state in (b"", b"a", b"ab", NI[:1], "é".encode()):
        if potential.advance(b"", state) is not None:
            assert mask_errors(potential, state, AWKWARD) == []


def test_mask_of_a_single_text_allows_every_spelling():
    vocabulary = Vocabulary([b"h", b"he", b"hello", b"lo", b"l", b"<end>"], ends=[5])
    assert Regex("hello").mask(b"", vocabulary).tolist() == [True] * 3 + [False] * 3
    assert Regex("hello").mask(b"he", vocabulary).tolist() == [False] * 4 + [True, False]
    assert not Regex("hello").mask(b"hello", vocabulary).any()


def test_partial_character_is_allowed_if_some_character_is():
    # In a multi-byte character a mask knows what can follow; a check waits.
    for pattern in (r"[é-ê]你?", r"\p{Lu}+", r"[^a-z]", r"[\U0001f600-\U0001f640]"):
        masked, checked = Regex(pattern), Regex(pattern, engine="check")
        for character in "éêàβΑ你佀😀😿🙀a":
            data = character.encode()
            for at in range(1, len(data)):
                tails = [bytes([last]) for last in range(0x80, 0xC0)] * (len(data) - at == 1)
                begun, done = verdict(masked, data[:at])
                assert not done
                assert verdict(checked, data[:at]) == (True, False)
                if tails:
                    assert begun == any(begins(pattern, (data[:at] + t).decode()) for t in tails)
                elif begins(pattern, character):
                    assert begun


@pytest.mark.parametrize("engine", ["mask", "check"])
def test_bytes_that_no_continuation_makes_utf8_are_rejected(engine: Any):
    potential = Regex(r"(?s).*", engine=engine)
    for wrong in (b"\xff", b"\x80", b"\xc0", b"\xc3a", b"\xed\xa0", b"\xf4\x90", b"\xe0\x80"):
        assert verdict(potential, b"a" + wrong) == (False, False)
    for half in (b"\xc3", b"\xed", b"\xe4\xbd", b"\xf0\x9f\x98"):
        assert verdict(potential, b"a" + half) == (True, False)


class Twin(BooleanPotential):
    """A Regex with a mistake."""

    def __init__(self, pattern: str, mistake: str) -> None:
        super().__init__()
        self.right = Regex(pattern)
        self.mistake = mistake

    def start(self) -> bytes:
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        after = self.right.advance(state, data)
        if self.mistake == "prefixes" and after is not None:
            try:
                after.decode()
            except UnicodeDecodeError:
                return None
        return after

    def accepts(self, state: Any) -> bool:
        return self.right.accepts(state)

    def mask(self, state: Any, vocabulary: Vocabulary) -> np.ndarray:  # pyright: ignore
        mask = self.right.mask(state, vocabulary)
        return np.roll(mask, 1) if self.mistake == "shift" else mask


def test_shifted_mask_and_unclosed_prefixes_are_found():
    text = "a你😀".encode()
    for mistake in ("none", "shift", "prefixes"):
        twin = Twin("a你😀|ab", mistake)
        wrong = [i for at in (0, 1) for i in mask_errors(twin, text[:at], AWKWARD)]
        assert bool(wrong) == (mistake != "none")
        assert bool(contract_errors(twin, text)) == (mistake == "prefixes")


def test_states_and_potentials_are_values():
    one, other = Regex("(a|b)+c"), Regex("(a|b)+c")
    state = one.advance(one.advance(b"", b"a"), b"b")
    assert state == other.advance(b"", b"ab")
    assert hash(state) == hash(other.advance(b"", b"ab"))
    assert one.advance(state, b"") == state
    assert one.key == other.key
    assert hash(one.key) == hash(other.key)
    assert Regex("a", engine="mask").key == Regex("a").key != Regex("a", engine="check").key
    assert "(a|b)+c" in one.fingerprint
    assert repr(one) == "Regex('(a|b)+c')"
    assert repr(Regex("a", engine="check")) == "Regex('a', engine='check')"
    assert Regex(r"(a)\1").mask is None


def test_equal_patterns_share_masks_and_the_tokenizer(monkeypatch: pytest.MonkeyPatch):
    built = []

    def count(*args: Any) -> LLTokenizer:
        built.append(args)
        return LLTokenizer(*args)

    monkeypatch.setattr(_llguidance, "LLTokenizer", count)
    vocabulary = Vocabulary([b"a", b"b"], ends=[])
    masks = [Regex(p).mask(b"", vocabulary) for p in ("ab", "ab", "a+", "b")]
    assert masks[0] is masks[1]
    assert not masks[0].flags.writeable
    assert len(built) == 1
    gone = weakref.ref(vocabulary)
    del vocabulary
    gc.collect()
    assert gone() is None
    assert Regex("ab").advance(b"", b"a") == b"a"


def bytes_read(step: Callable[[Regex], None], pattern: str) -> int:
    potential = Regex(pattern)
    language: Any = potential._language
    before = language.consumed
    step(potential)
    return language.consumed - before


@pytest.mark.parametrize("masks", [False, True])
def test_check_reads_no_more_than_the_new_bytes(masks: bool):
    tokens = [b"ab", b"aba", NI[:2], NI[2:], b"b"]
    vocabulary = Vocabulary(tokens, ends=[])
    length = 300

    def grow(potential: Regex) -> None:
        state: Any = b""
        for i in range(length):
            if masks:
                potential.mask(state, vocabulary)
            state = potential.advance(state, tokens[i % 5])
            assert potential.accepts(state) == (i % 5 != 2)
            assert potential.advance(state, b"!") is None

    # Nine bytes in five tokens.
    assert bytes_read(grow, rf"(?:a|b|你)*|never {masks}") == length * 9 // 5


def test_evicted_text_is_read_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_llguidance, "_matchers", Recent(2))
    monkeypatch.setattr(_llguidance, "_masks", Recent(1))
    potential = Regex("(ab)*c evicted")
    texts = [b"ab" * n for n in range(100)]
    assert all(potential.advance(b"", text) == text for text in texts)
    for _ in range(2):
        masks = [potential.mask(text, AWKWARD)[:4].tolist() for text in texts]
        assert masks == [[True, True, True, False]] * 100


def test_masks_of_two_vocabularies_are_separate():
    first, second = Vocabulary([b"a", b"b"], ends=[]), Vocabulary([b"b", b"ba", b"a"], ends=[])
    potential = Regex("(ab)*")
    for state in (b"", b"a", b"ab", b"aba"):
        for vocabulary in (first, second, first):
            assert mask_errors(potential, state, vocabulary) == []


def test_pattern_without_matches_rejects_the_empty_prefix():
    nothing = r"[^\x00-\U0010ffff]"
    for pattern in (nothing, f"a{nothing}|{nothing}b", f"(?:a{nothing})+"):
        assert verdict(Regex(pattern, engine="mask"), b"") == (False, False)
        assert not Regex(pattern).mask(b"", AWKWARD).any()
    assert verdict(Regex("(?!)"), b"") == (False, False)
    assert verdict(Regex("(?!)"), "é".encode()[:1]) == (False, False)
    assert verdict(Regex("", engine="mask"), b"") == (True, True)


def test_pattern_that_cannot_be_used_raises_with_the_reason():
    with pytest.raises(ValueError, match=r"'a\(b'\) does not parse: missing \) at position 3"):
        Regex("a(b")
    with pytest.raises(ValueError, match=r"'\(\?r\)ab'\) reads from the end"):
        Regex("(?r)ab")
    with pytest.raises(ValueError, match=r"has no mask: .*'\\\\1' at position 3"):
        Regex(r"(a)\1", engine="mask")
    with pytest.raises(ValueError, match="engine='fast'"):
        Regex("a", engine="fast")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="b'a'"):
        Regex(b"a")  # pyright: ignore[reportArgumentType]


def test_check_over_its_time_limit_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TIME_LIMIT", 0.05)
    potential = Regex(r"(\w|\w\w)+\1!")
    with pytest.raises(PotentialError, match=r"more than 0\.05 s on the text 'aaaa"):
        potential.advance(b"", b"a" * 60 + b"?")


def test_recursion_without_end_raises():
    with pytest.raises(PotentialError, match=r"'\(\?R\)'\) took too much memory on the text 'a'"):
        Regex("(?R)").advance(b"", b"a")


def test_matcher_that_gives_up_raises():
    potential = Regex(r"(?:\w{1,90}\d{1,90}|\d{1,90}\w{1,90}){1,90}(?:\d{1,90}){1,90}")
    with pytest.raises(PotentialError, match=r"gave up after.*engine='check'"):
        potential.advance(b"", b"1" * 3000)


@pytest.mark.parametrize("pattern", ["a{99999999}", "((?:a{1000}){10}b){100}", "[a{2}]{200000,}"])
def test_pattern_that_repeats_too_much_raises(pattern: str) -> None:
    with pytest.raises(ValueError, match="once its repeats are written out"):
        Regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("a{0,99999999}", "aa"),
        (r"[{9999999}]+\{9999999\}", "9{9999999}"),
        ("(a{100}){100}", "a" * 10_000),
    ],
)
async def test_pattern_that_only_looks_large_is_compiled(pattern: str, text: str) -> None:
    assert await Regex(pattern).complete(text.encode()) == 0.0


def test_matchers_of_a_vocabulary_that_is_gone_are_forgotten_by_the_next_reader() -> None:
    """Each holds the tokenizer of its vocabulary, which is large."""

    def read() -> weakref.ref[Vocabulary]:
        vocabulary = Vocabulary([b"a", b"b"], ends=())
        potential = Regex("a+b", engine="mask")
        state = potential.advance(potential.start(), b"aa")
        potential.mask(state, vocabulary)
        return weakref.ref(vocabulary)

    kept = len(_llguidance._matchers), _llguidance._masks.cost
    for _ in range(30):
        gone = read()
        gc.collect()
        assert gone() is None
    Regex("c+", engine="mask").mask(b"", Vocabulary([b"c"], ends=()))
    assert len(_llguidance._matchers) <= kept[0] + 9
    assert _llguidance._masks.cost <= kept[1] + 9
