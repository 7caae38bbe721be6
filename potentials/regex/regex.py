r"""Texts that match a regular expression.

A regular pattern becomes an automaton with masks; any other is checked, one text at a time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import regex

from awrs_ppl._messages import show
from awrs_ppl.constraints.arguments import Argument
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials._llguidance import Language
from awrs_ppl.potentials.regex.alphabet import is_ascii
from awrs_ppl.potentials.regex.prefix import relax
from awrs_ppl.potentials.regex.regular import NotRegular, translate
from awrs_ppl.potentials.regex.syntax import Unreadable, parse
from awrs_ppl.potentials.regex.tree import Node, Pattern, Repeat, children
from awrs_ppl.tokens.text import continuing, decode

__all__ = ["Regex"]

Engine = Literal["mask", "check"]

# Seconds for one match of a pattern that backtracks.
TIME_LIMIT = 5.0
# Each takes about 400 bytes.
MOST_ITEMS = 100_000


class Regex(BooleanPotential):
    r"""The texts that match a whole pattern, in the dialect of the package `regex`.

    As with `regex.fullmatch`, nothing may stand before or behind; `.` is any character but the
    newline, unless the pattern begins with `(?s)`. `engine` says how verdicts are found:

    - `"mask"`: all next tokens at once; only for regular patterns.
    - `"check"`: one text at a time, by backtracking: look-around, back-references, recursion. A
      prefix of a match is never rejected; where parts of the pattern exclude each other some
      prefixes are allowed that cannot be completed, as `"a"` for `(?=ab)ac`.
    - `"auto"`: a mask where the pattern is surely regular, else a check.

    Raises `ValueError` for a pattern that does not compile, that repeats too much
    (`(a{1000}){1000}`), or that reads from the end (`(?r)`), and for `engine="mask"` where
    there is no mask. A check that takes more than 5 seconds is a `PotentialError`.

    >>> import asyncio
    >>> date = Regex(r"\d{4}-\d\d")
    >>> asyncio.run(date.prefix(b"2024-")), asyncio.run(date.complete(b"2024-"))
    (0.0, -inf)
    >>> date, Regex(r"(a|b)\1")
    (Regex('\\d{4}-\\d\\d'), Regex('(a|b)\\1', engine='check'))
    """

    arguments = (
        Argument("pattern"),
        Argument("engine", compared=None, option="engine", default="mask"),
    )

    def __init__(self, pattern: str, *, engine: Literal["auto", "mask", "check"] = "auto") -> None:
        if not isinstance(pattern, str):
            raise TypeError(f"Regex got {pattern!r}: the pattern must be a str")
        if not isinstance(engine, str) or engine not in ("auto", "mask", "check"):
            raise ValueError(
                f"Regex({pattern!r}) got engine={engine!r}: choose 'auto', 'mask' or 'check'"
            )
        super().__init__()
        self.pattern = pattern
        self._language = _compile(pattern, engine)
        if isinstance(self._language, Language):
            self.mask = self._language.mask
            self.searched = True

    @property
    def engine(self) -> Engine:
        """How verdicts are found: by `"mask"` or by `"check"`."""
        return "mask" if isinstance(self._language, Language) else "check"

    def start(self) -> bytes:
        """The state of the empty text: a state is the text so far."""
        return b""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        """The text with `data`; `None` if no match has this prefix."""
        return self._language.advance(state, data)

    def next_bytes(self, state: Any) -> range | None:
        """In a multi-byte character, where the text is matched anew: the bytes that can follow."""
        return continuing(state) if isinstance(self._language, _Backtracking) else None

    def accepts(self, state: Any) -> bool:
        """Whether the text is a match."""
        return self._language.accepts(state)

    def is_over(self, state: Any) -> bool:
        """What `accepts` says: a text that need not end is over here."""
        return self.accepts(state)


class _Backtracking:
    """A pattern that is matched against the whole text each time."""

    def __init__(self, pattern: str, compiled: regex.Pattern[str], tree: Pattern | None) -> None:
        self.pattern = pattern
        self._whole = compiled
        # Where the syntax is not known here, or nested too deeply, every prefix is allowed.
        self._is_ascii = False
        try:
            self._is_ascii = tree is not None and is_ascii(tree, compiled.flags)
            self._begun = regex.compile(relax(tree)) if tree else None
        except (RecursionError, regex.error):
            self._begun = None

    def advance(self, state: bytes, data: bytes) -> bytes | None:
        text = state + data
        try:
            characters, pending = decode(text)
        except UnicodeDecodeError:
            return None
        if pending and self._is_ascii:
            return None
        # Where no further character is complete, the verdict on those before stands.
        if state and len(pending) >= len(data):
            return text
        return text if self._match(characters, partial=True) else None

    def accepts(self, state: bytes) -> bool:
        characters, pending = decode(state)
        return not pending and self._match(characters, partial=False)

    def _match(self, text: str, *, partial: bool) -> bool:
        compiled = self._begun if partial else self._whole
        if compiled is None:
            return True
        try:
            return compiled.fullmatch(text, partial=partial, timeout=TIME_LIMIT) is not None
        except TimeoutError as error:
            raise PotentialError(
                f"Regex({self.pattern!r}) took more than {TIME_LIMIT:g} s on the text "
                f"{show(text)}: write it with fewer nested repetitions"
            ) from error
        except MemoryError as error:  # raised by a limit of `regex` itself
            raise PotentialError(
                f"Regex({self.pattern!r}) took too much memory on the text "
                f"{show(text)}: let every recursion read a character first"
            ) from error


@lru_cache(maxsize=256)
def _compile(pattern: str, engine: str) -> Language | _Backtracking:
    if engine == "auto":
        try:
            return _compile(pattern, "mask")
        except _NoMask:
            return _compile(pattern, "check")
    compiled, tree = _parse(pattern)
    if engine == "check":
        return _Backtracking(pattern, compiled, tree)
    try:
        if tree is None:
            raise NotRegular("its syntax is not known here, or nested too deeply")
        if compiled.flags & (regex.V1 | regex.FULLCASE):
            raise NotRegular("version 1 of the syntax is not known to be regular")
        return Language(
            f"start: /{translate(tree)}/",
            name=f"Regex({pattern!r})",
            remedy="; write a simpler pattern, or engine='check'",
        )
    except (NotRegular, ValueError, RecursionError) as error:
        raise _NoMask(f"Regex({pattern!r}, engine='mask') has no mask: {error}") from error


class _NoMask(ValueError):
    pass


def _parse(pattern: str) -> tuple[regex.Pattern[str], Pattern | None]:
    """The pattern for whole texts, and its syntax tree where that is known."""
    try:
        tree = parse(pattern)
        size = _written_out(tree.tree)
    except (Unreadable, RecursionError):
        tree, size = None, 0
    if size > MOST_ITEMS:
        raise ValueError(
            f"Regex({pattern!r}) has {size:,} characters and sets once its repeats are written "
            f"out, and may have {MOST_ITEMS:,}: repeat less often"
        )
    try:
        compiled = regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, ValueError, KeyError) as error:
        raise ValueError(f"Regex({pattern!r}) does not parse: {error}") from error
    if compiled.flags & regex.REVERSE:
        raise ValueError(
            f"Regex({pattern!r}) reads from the end of the text, and texts grow at the end: "
            "leave out the flag r"
        )
    return compiled, tree


def _written_out(node: Node) -> int:
    """How many items a pattern has when what must be repeated is written out, as `regex` does."""
    times = max(node.low, 1) if isinstance(node, Repeat) else 1
    return times * (sum(map(_written_out, children(node))) or 1)
