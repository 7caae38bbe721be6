"""Texts of a context-free grammar."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import regex

from awrs_ppl.potential import BooleanPotential
from awrs_ppl.potentials._llguidance import Language

__all__ = ["Grammar"]

SHOWN = 40

# Strings, regular expressions and comments, which are passed over, and what cannot be read
# byte by byte: tokens by their numbers, and counts of tokens.
_PARTS = regex.compile(
    r'"(?:[^"\\\n]|\\.)*"|/(?![/*])(?:[^/\\\n]|\\.)+/|//[^\n]*|\#[^\n]*'
    r"|(?P<tokens><\[|\bmax_tokens\b)"
)


class Grammar(BooleanPotential):
    """The texts of a context-free grammar in Lark syntax, with masks by llguidance.

    The grammar's start is the rule `start`; names of rules are in small letters, of terminals in
    capitals; terminals are regular, without look-around. Beside Lark's own syntax llguidance
    reads `%json {...}` (a JSON schema; prefer `JsonSchema`). Terminals match greedily: the
    longest wins, as in Lark's lexer.

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

    @property
    def key(self) -> tuple[type, str]:
        """Equal for equal grammars."""
        return (type(self), self.lark)

    @property
    def fingerprint(self) -> str:
        """The grammar."""
        return f"Grammar({self.lark!r})"

    def __repr__(self) -> str:
        return _name(self.lark)

    def start(self) -> bytes:
        """The state of the empty text: a state is the text so far."""
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        """The text with `data`; `None` if no text of the grammar begins so."""
        return self._language.advance(state, data)

    def accepts(self, state: Any) -> bool:
        """Whether the text is one of the grammar."""
        return self._language.accepts(state)


def _name(lark: str) -> str:
    shown = repr(lark.strip())
    return f"Grammar({shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'})"


@lru_cache(maxsize=64)
def _compile(lark: str) -> Language:
    name = _name(lark)
    for part in _PARTS.finditer(lark):
        if part["tokens"]:
            raise ValueError(
                f"{name}: {part.group()!r} is about the tokens of one language model, and a "
                "grammar is about text: write the text"
            )
    try:
        return Language(lark, name=name, remedy="; write a simpler grammar")
    except ValueError as error:
        raise ValueError(f"{name} does not compile: {error}") from error


@lru_cache(maxsize=64)
def _from_gbnf(gbnf: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        lark = gbnf_to_lark(gbnf)
    except Exception as error:  # the parser raises Exception itself
        raise ValueError(f"Grammar.from_gbnf({gbnf!r}) does not parse: {error}") from error
    return lark.removeprefix("%llguidance {}").strip() + "\n"
