"""How goals are written: a regular language, and the literals of a text."""

from __future__ import annotations

import re

from awrs_ppl.potentials._llguidance import Language

__all__ = ["CLOSED", "atom_pattern", "language", "negation_pattern", "split"]

BLANK = r"[ \t\r\n]"

# The brackets of "and", ":goal" and the whole problem, as they close.
CLOSED = (b")", b"))", b")))")

_ONE = re.compile(rb"\((?:[^()]|\([^()]*\))*\)")
_SEVERAL = re.compile(rb"(?:%s)*" % _ONE.pattern)
_BESIDE_BRACKETS = re.compile(rb" ?([()]) ?")


def split(text: bytes) -> tuple[list[bytes], bytes]:
    """The whole literals that a goal begins with, and the rest; in one way of writing them.

    >>> split(b" (On b1  b2)\\n(not ( clear b3 ")
    ([b'(on b1 b2)'], b'(not(clear b3 ')
    """
    text = re.sub(rb"[ \t\r\n]+", b" ", text.lower())
    text = _BESIDE_BRACKETS.sub(rb"\1", text.lstrip(b" "))
    several = _SEVERAL.match(text)
    assert several is not None  # it matches the empty text
    return _ONE.findall(several[0]), text[several.end() :]


def language(patterns: list[str], name: str) -> Language:
    """The goals whose literals match one of the patterns; `name` is for messages."""
    literals = "|".join(patterns)
    pattern = rf"{BLANK}*(?:(?:{literals}){BLANK}*)+\){BLANK}*\){BLANK}*(?:\){BLANK}*)?"
    return Language(f"start: /{pattern}/", name=name, remedy="; use a smaller problem")


def atom_pattern(words: list[list[str]]) -> str:
    """Matches atoms: for each of their words the choices are given, in small letters."""
    choices = [f"(?:{'|'.join(map(_word_pattern, words_))})" for words_ in words]
    return rf"\({BLANK}*{f'{BLANK}+'.join(choices)}{BLANK}*\)"


def negation_pattern(atoms: str) -> str:
    """Matches the negations of what a pattern matches."""
    return rf"\({BLANK}*{_word_pattern('not')}{BLANK}*(?:{atoms}){BLANK}*\)"


def _word_pattern(word: str) -> str:
    # Not by the flag i: that would also take the Kelvin sign for a k.
    letters = (f"[{it}{it.upper()}]" if it.isalpha() else re.escape(it) for it in word)
    return "".join(letters).replace("/", r"\/")
