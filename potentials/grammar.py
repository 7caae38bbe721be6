"""Texts of a context-free grammar."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import regex

from awrs_ppl._messages import shorten
from awrs_ppl.constraints.arguments import Argument
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.potentials._lark import completed, without_comments
from awrs_ppl.potentials._llguidance import Language

__all__ = ["Grammar"]

SHOWN = 41

# Strings, regular expressions and comments, which are passed over, and what cannot be read
# byte by byte: tokens by their numbers, and counts of tokens.
_PARTS = regex.compile(
    r'"(?:[^"\\\n]|\\.)*"|/(?![/*])(?:[^/\\\n]|\\.)+/|//[^\n]*|\#[^\n]*'
    r"|(?P<tokens><\[|\bmax_tokens\b)"
)

_SHOWN_LINE = regex.compile(r"(?P<margin> *(?P<number>\d+) \| )")

# What Lark has and llguidance has not, by words of its messages.
_REMEDIES = {
    "params not supported": "write the rule out for each of its arguments",
    "template usage not supported": "write the rule out for each of its arguments",
    "override statement not supported": "write the rule once, as it is to be",
    "declare statement not supported": "define the terminal",
    "Unknown common regex": "write the terminal out",
    "lexer error": "strings stand in double quotes and end on their line, and the directives are "
    "%import, %ignore and %json",
    "lookarounds not supported": "write what the terminal may be, without look-around",
}


def _shown(lark: str) -> str:
    return shorten(repr(lark.strip()), SHOWN, tail=0)


class Grammar(BooleanPotential):
    """The texts of a context-free grammar in Lark syntax, with masks by llguidance.

    The grammar's start is the rule `start`; names of rules are in small letters, of terminals in
    capitals; terminals are regular. What `%ignore` names may stand before, between and behind
    terminals. Priorities and aliases only choose between trees, and so change nothing. Beside
    Lark's own syntax llguidance reads `%json {...}` (a JSON schema; prefer `JsonSchema`).

    Texts are split into terminals as by Lark's `parser="lalr"`, one step ahead: of all terminals
    that may come next the longest wins, so `"a" "ab" | "aa" "c"` has no text `aab`; what can be
    ignored is ignored, so a terminal that is also named by `%ignore` is never found; and what
    has begun as a longer text of a terminal must be finished, so with `/[0-9]+(\\.[0-9]+)?/ "."`
    a text ends on `1.5.` and not on `1.`. A lazy repeat is understood before a fixed text at
    the end of its terminal, as in `/".*?"/`.

    Not supported are templates (`x{t}: ...`), `%declare`, `%override`, `%extend`, imports from
    elsewhere than `common`, `common._STRING_INNER` and the like, look-around and `\\b`.

    Raises `ValueError` if the grammar does not compile, or names tokens by number.

    >>> import asyncio
    >>> sums = Grammar('''
    ... start: term ("+" term)*
    ... term: /[0-9]+/ | "(" start ")"
    ... ''')
    >>> asyncio.run(sums.prefix(b"(1+2")), asyncio.run(sums.complete(b"(1+2"))
    (0.0, -inf)
    >>> sums
    Grammar('start: term ("+" term)*\\nterm: /[0-9]+/…)
    """

    arguments = (Argument("lark", shown=_shown),)
    searched = True

    def __init__(self, lark: str) -> None:
        if not isinstance(lark, str):
            raise TypeError(f"Grammar got {lark!r}: the grammar must be a str")
        super().__init__()
        self.lark = lark
        self._language = _compile(lark)
        self.mask = self._language.mask

    @classmethod
    def from_gbnf(cls, gbnf: str) -> Grammar:
        """The grammar in the syntax of llama.cpp, translated to Lark's.

        Raises `ValueError` if it does not parse, or has no rule `root`.

        >>> Grammar.from_gbnf('root ::= "a" [0-9]+').lark
        'start: "a" /[0-9]/+\\n'
        """
        if not isinstance(gbnf, str):
            raise TypeError(f"Grammar.from_gbnf got {gbnf!r}: the grammar must be a str")
        return cls(_from_gbnf(gbnf))

    def start(self) -> bytes:
        """The state of the empty text: a state is the text so far."""
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        """The text with `data`; `None` if no text of the grammar has this prefix."""
        return self._language.advance(state, data)

    def accepts(self, state: Any) -> bool:
        """Whether the text is one of the grammar."""
        return self._language.accepts(state)

    def is_over(self, state: Any) -> bool:
        """What `accepts` says: a text that need not end is over here."""
        return self.accepts(state)


@lru_cache(maxsize=64)
def _compile(lark: str) -> Language:
    name = f"Grammar({_shown(lark)})"
    for part in _PARTS.finditer(lark):
        if part["tokens"]:
            raise ValueError(
                f"{name}: {part.group()!r} is about the tokens of one language model, and a "
                "grammar is about text: write the text"
            )
    try:
        return _language(completed(lark), name)
    except ValueError as error:
        message = str(error)
    try:
        # What was added may not be quoted, so the grammar by itself must say what is wrong.
        _language(without_comments(lark), name)
    except ValueError as error:
        message = _quoted(str(error), lark)
    raise ValueError(f"{name} does not compile: {message}")


def _language(lark: str, name: str) -> Language:
    return Language(lark, name=name, remedy="; write a simpler grammar")


def _quoted(message: str, lark: str) -> str:
    """The message with the lines of the grammar as they were written, and what to write."""
    lines = lark.split("\n")
    head, *shown = message.split("\n")
    quoted = [head + _remedy(head)]
    for line in shown:
        found = _SHOWN_LINE.match(line)
        if found is None:
            quoted.append(line)
        elif int(found["number"]) <= len(lines):
            quoted.append(found["margin"] + lines[int(found["number"]) - 1].rstrip("\r"))
    return "\n".join(quoted).rstrip()


def _remedy(message: str) -> str:
    return next((f": {what}" for sign, what in _REMEDIES.items() if sign in message), "")


@lru_cache(maxsize=64)
def _from_gbnf(gbnf: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        lark = gbnf_to_lark(gbnf)
    except Exception as error:  # the parser raises Exception itself
        raise ValueError(f"Grammar.from_gbnf({gbnf!r}) does not parse: {error}") from error
    return lark.removeprefix("%llguidance {}").strip() + "\n"
