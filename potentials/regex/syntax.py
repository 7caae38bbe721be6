"""Reads a pattern of the package `regex`. Comments and ignored blanks are left out."""

from __future__ import annotations

import re

from awrs_ppl.potentials.regex.tree import (
    Assertion,
    Atomic,
    Characters,
    Choice,
    Conditional,
    Flags,
    Fuzzy,
    Group,
    Look,
    Node,
    Pattern,
    Reference,
    Repeat,
    Sequence,
    Verb,
)

__all__ = ["Unreadable", "parse"]


class Unreadable(Exception):
    """A pattern is not in the part of the syntax that is known here."""


def parse(pattern: str) -> Pattern:
    r"""The syntax tree of a pattern.

    Raises `Unreadable` where the syntax is not known here; of a pattern that `regex` does not
    compile it may give any tree.

    >>> from awrs_ppl.potentials.regex.tree import write
    >>> write(parse(r"(?x) a{0,}? (?# blank) [ #] \b | (?i:\1)").tree)
    '(?x)a*?[ #]\\b|(?i:\\g<1>)'
    """
    try:
        reader = _Reader(pattern, version1=False)
        tree = reader.whole()
        if "V1" in reader.flags:  # sets are read differently, from the start
            reader = _Reader(pattern, version1=True)
            tree = reader.whole()
    except IndexError as error:
        raise Unreadable("the end of the pattern is missing") from error
    return Pattern(tree, frozenset(reader.flags))


_ESCAPE = re.compile(
    r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|N\{[\w -]*\}|[pP]\{[^{}]*\}"
    r"|0[0-7]{0,2}|[1-3][0-7]{2}|[4-7][0-7]{2}|.)",
    re.S,
)
_REFERENCE = re.compile(r"\\(?:[1-9][0-9]?|g<[^>]*>)")
_OCTAL = re.compile(r"\\[1-7][0-7]{2}")
_POSIX = re.compile(r"\[:\^?[\w &.-]*(?:[:=][\w &.-]*)?:\]")
_CALL = re.compile(r"\(\?(?:R|[0-9]+|[+-][0-9]+|&[^)]*|P[>&][^)]*)\)")
_BACK = re.compile(r"\(\?P=[^)]*\)")
_NAMED = re.compile(r"\(\?P?<(?![=!])[^>]*>")
_LOOK = re.compile(r"\(\?(<?)([=!])")
_VERB = re.compile(r"\(\*[A-Za-z]+\)")
_FLAGS = re.compile(r"\(\?((?:V[01]|[a-zL])*)(?:-([a-zL]+))?([:)])")
_COMMENT = re.compile(r"\(\?#(?:\\.|[^\\)])*\)", re.S)
_TEST = re.compile(r"\(\?\(([^)?]*)\)")
_COUNT = re.compile(r"([0-9]*)(?:(,)([0-9]*))?")
_ERRORS = re.compile(r"[\s0-9<=>,+]*[eids][\s0-9eids<=>,+]*(?::.*)?", re.S)
_IGNORED = re.compile(r"(?:\s|#.*(?:\n|$))+")
_PLACES = frozenset("AZzbBmMKG")


class _Reader:
    def __init__(self, pattern: str, *, version1: bool) -> None:
        self.pattern = pattern
        self.at = 0
        self.flags: set[str] = set()
        self._version1 = version1
        self._verbose = False

    def whole(self) -> Node:
        tree = self._alternatives()
        if self.at < len(self.pattern):
            raise Unreadable(f"unbalanced {self.pattern[self.at]!r} at position {self.at}")
        return tree

    def _next(self) -> str:
        """The next character that counts, `""` at the end."""
        if self._verbose and (ignored := _IGNORED.match(self.pattern, self.at)):
            self.at = ignored.end()
        return self.pattern[self.at : self.at + 1]

    def _take(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        found = expression.match(self.pattern, self.at)
        if found:
            self.at = found.end()
        return found

    def _alternatives(self) -> Node:
        parts = [self._sequence()]
        while self._next() == "|":
            self.at += 1
            parts.append(self._sequence())
        return Choice(tuple(parts)) if len(parts) > 1 else parts[0]

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while (char := self._next()) and char not in "|)":
            at = self.at
            if self._take(_COMMENT):
                continue
            if char in "*+?" or (char == "{" and self._is_bounds()):
                # Flags are no part that is repeated: what stands before them is.
                places = (i for i in reversed(range(len(parts))) if not isinstance(parts[i], Flags))
                last = next(places, None)
                if last is None or isinstance(parts[last], Repeat):
                    raise Unreadable(f"nothing to repeat at position {at}")
                parts[last] = self._repeat(parts[last])
            else:
                parts.append(self._item(char))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _bounds(self) -> str:
        text = self.pattern[self.at + 1 : self.pattern.find("}", self.at)]
        return re.sub(r"\s", "", text) if self._verbose else text

    def _is_bounds(self) -> bool:
        if self.pattern.find("}", self.at) < 0 or not (bounds := self._bounds()):
            return False
        return bool(_COUNT.fullmatch(bounds) or _ERRORS.fullmatch(bounds))

    def _repeat(self, part: Node) -> Node:
        at = self.at
        char = self.pattern[at]
        if char != "{":
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
            self.at += 1
        else:
            bounds = self._bounds()
            self.at = self.pattern.index("}", at) + 1
            if not (found := _COUNT.fullmatch(bounds)):
                return Fuzzy(part, bounds, at)
            low = int(found[1] or 0)
            high = low if not found[2] else int(found[3]) if found[3] else None
        mode = self._next()
        if mode not in ("?", "+"):
            mode = ""
        self.at += len(mode)
        return Repeat(part, low, high, mode, at)

    def _item(self, char: str) -> Node:
        at = self.at
        if char == "(":
            return self._parentheses()
        if char == "[":
            self._set()
            return Characters(self.pattern[at : self.at], at)
        if char == "\\":
            return self._escape()
        self.at += 1
        return Assertion(char, at) if char in "^$" else Characters(char, at)

    def _escape(self) -> Node:
        at = self.at
        if not _OCTAL.match(self.pattern, at) and (found := self._take(_REFERENCE)):
            return Reference(found.group(), False, at)
        found = self._take(_ESCAPE)
        if not found or found.group() == r"\L":
            raise Unreadable(f"{self.pattern[at : at + 2]!r} at position {at}")
        if found.group()[1:] in _PLACES:
            return Assertion(found.group(), at)
        if found.group()[1] == "0":
            return Characters(rf"\x{int(found.group()[1:], 8):02x}", at)
        return Characters(found.group(), at)

    def _set(self) -> None:
        self.at += 2 if self.pattern.startswith("^", self.at + 1) else 1
        first = True
        while first or self.pattern[self.at] != "]":
            first = False
            if self._take(_POSIX):
                continue
            if self.pattern[self.at] == "[" and self._version1:
                self._set()
            elif not self._take(_ESCAPE):
                self.pattern[self.at]  # there must be one
                self.at += 1
            if self._version1 and self.pattern.startswith(("||", "~~", "&&", "--"), self.at):
                self.at += 2
                first = True
        self.at += 1

    def _parentheses(self) -> Node:
        at = self.at
        if found := self._take(_CALL):
            return Reference(found.group(), True, at)
        if found := self._take(_BACK):
            return Reference(found.group(), False, at)
        if found := self._take(_VERB):
            return Verb(found.group(), at)
        if found := self._take(_LOOK):
            return Look(bool(found[1]), found[2] == "=", self._inner(), at)
        if self.pattern.startswith("(?>", at):
            self.at += 3
            return Atomic(self._inner(), at)
        if self.pattern.startswith("(?(", at):
            return self._conditional()
        if found := self._take(_NAMED):
            return Group(re.sub(r"\s", "", found.group()), self._inner(), at)
        if self.pattern.startswith("(?|", at):
            self.at += 3
            return Group("(?|", self._inner(), at)
        if found := self._take(_FLAGS):
            return self._flags(found, at)
        if self.pattern.startswith("(?", at):
            raise Unreadable(f"{self.pattern[at : at + 4]!r} at position {at}")
        self.at += 1
        return Group("(", self._inner(), at)

    def _inner(self) -> Node:
        verbose = self._verbose
        part = self._alternatives()
        self._close()
        self._verbose = verbose
        return part

    def _close(self) -> None:
        if self._next() != ")":
            raise Unreadable("missing )")
        self.at += 1

    def _conditional(self) -> Node:
        at = self.at
        verbose = self._verbose
        if found := self._take(_TEST):
            test: str | Look = found[1]
        else:
            self.at += 2
            look = self._parentheses()
            if not isinstance(look, Look):
                raise Unreadable(f"the condition at position {at}")
            test = look
        yes = self._sequence()
        no: Node = Sequence(())
        if self._next() == "|":
            self.at += 1
            no = self._sequence()
        self._close()
        self._verbose = verbose
        return Conditional(test, yes, no, at)

    def _flags(self, found: re.Match[str], at: int) -> Node:
        verbose = self._verbose
        self.flags.update(re.findall("V[01]|.", found[1]))
        self._verbose = ("x" in found[1] or verbose) and "x" not in (found[2] or "")
        if found[3] == ")":
            return Flags(found.group(), at)
        part = self._alternatives()
        self._close()
        self._verbose = verbose
        return Group(found.group(), part, at)
