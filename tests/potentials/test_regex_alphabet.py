"""Which patterns have matches of ASCII alone: against all short texts that `regex` matches."""

from __future__ import annotations

from itertools import product

import pytest
import regex

from awrs_ppl.potentials import Regex
from awrs_ppl.potentials.regex.alphabet import is_ascii
from awrs_ppl.potentials.regex.syntax import parse

# Beside letters: a sign, the long s and the Kelvin sign, which are s and k in another case, an
# Arabic digit, a space that is none of ASCII's.
CHARACTERS = "akS1. é\u017f\u212a\u0663\u00a0"
TEXTS = ["".join(text) for n in range(4) for text in product(CHARACTERS, repeat=n)]

ASCII = [
    r"([a-z])[a-z]\1",
    r"(?:a|k){2}",
    r"(?P<x>a)(?P=x)",
    r"(?<=a)k|(?=k)[a-k]+",
    r"[[:ascii:]]+",
    r"a\.k",
    r"(?>a|ak)S?",
    r"[,-z](a)?\1",
    r"(a)?(?(1)k|S)",
]
OTHERS = [
    r".(a)?\1",
    r"[^a](a)?\1",
    r"\w(a)?\1",
    r"\d(a)?\1",
    r"\s(a)?\1",
    r"(?i)k(a)?\1",
    r"(?i:s)(a)?\1",
    r"[a-zé](a)?\1",
    r"é(a)?\1",
    r"(?:a){e<=1}",
    r"\p{L}(a)?\1",
    r"(a)?(?(1)k|\S)",
    r"(?:(?i)s)(a)?\1",
]


@pytest.mark.parametrize("pattern", [*ASCII, *OTHERS])
def test_pattern_with_a_match_beyond_ascii_is_not_ascii(pattern):
    compiled = regex.compile(pattern)
    beyond = [text for text in TEXTS if not text.isascii() and compiled.fullmatch(text)]
    assert bool(beyond) == (pattern in OTHERS)
    assert is_ascii(parse(pattern), compiled.flags) == (not beyond)


def test_no_byte_of_another_character_begins_a_match_of_ascii():
    # The verdict on such a byte would wait for the rest of its character.
    pattern = Regex(r"([a-z])\1", engine="check")
    assert pattern.advance(b"", b"\xc3") is None
    assert pattern.advance(b"", b"a\xe2\x82") is None
    assert pattern.advance(b"a", b"a") is not None


def test_bytes_of_another_character_may_begin_a_match_that_has_some():
    pattern = Regex(r"([a-zé])\1", engine="check")
    state = pattern.advance(b"", b"\xc3")
    assert state is not None
    assert pattern.advance(state, b"\xa9") is not None
