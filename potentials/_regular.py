r"""Which patterns of the package `regex` are regular, and the same in a syntax all engines share.

Dialects differ in what `\d`, `$`, `[a&&b]` or `(?i)k` mean. Here every set of characters is
asked of `regex` itself and written as plain ranges, so that what is left (sequences, `|` and
repetition) has one meaning everywhere. What is not surely regular is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import regex

__all__ = ["COUNT", "NotRegular", "translate"]


class NotRegular(Exception):
    """A pattern is not regular, or not in the part of the syntax whose meaning is certain."""


def translate(pattern: str) -> str:
    r"""The same language with explicit sets of characters, without anchors, groups and flags.

    `pattern` must be one that `regex` compiles. Raises `NotRegular`, naming the construct.

    >>> print(translate(r"^(?P<word>[a-c]x)*?\Z|[[:digit:]]{,2}"))
    (?:(?:[\x{61}-\x{63}]\x{78})*|[\x{30}-\x{39}]{0,2})
    """
    flags = _FLAGS.match(pattern)
    prefix = flags.group() if flags else ""
    parser = _Parser(pattern, len(prefix), prefix)
    tree = parser.alternatives()
    if parser.at < len(pattern):
        raise parser.refuse(pattern[parser.at])
    return _write(tree, True, True)


# Flags that only change sets of characters, and only at the start: elsewhere their scope differs.
_FLAGS = re.compile(r"\(\?[aisu]+\)")
COUNT = re.compile(r"\{(?:([0-9]+)(,?)([0-9]*)|,([0-9]+))\}")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>|(?!\?))")
_CODE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})")
_CLASS = re.compile(r"\\(?:[wWdDsStnrfva]|[pP]\{\^?\w[\w ]*(?:[=:][\w ]+)?\})")
# A set without sets in it, as `[a]b]`, `[a&&[b]]` and `[[a]]` are read in different ways. Operators
# are harmless: `regex` says what they mean.
_SET = re.compile(r"\[\^?+(?:\\.|\[:\^?\w+:\]|[^\[\]\\])(?:\\.|\[:\^?\w+:\]|[^\[\]\\])*\]", re.S)


@dataclass(frozen=True, slots=True)
class _Set:
    ranges: str


@dataclass(frozen=True, slots=True)
class _Anchor:
    start: bool
    where: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    count: str


_Node: TypeAlias = _Set | _Anchor | _Sequence | _Choice | _Repeat


class _Parser:
    def __init__(self, pattern: str, at: int, flags: str) -> None:
        self.pattern = pattern
        self.at = at
        self.flags = flags

    def refuse(self, what: str, why: str = "this may not be regular") -> NotRegular:
        return NotRegular(f"{what!r} at position {self.at}: {why}")

    def alternatives(self) -> _Node:
        parts = [self.sequence()]
        while self.pattern.startswith("|", self.at):
            self.at += 1
            parts.append(self.sequence())
        return _Choice(tuple(parts)) if len(parts) > 1 else parts[0]

    def sequence(self) -> _Node:
        parts = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            part = self.atom()
            parts.append(self.repeated(part))
        return _Sequence(tuple(parts))

    def repeated(self, part: _Node) -> _Node:
        rest = self.pattern[self.at : self.at + 1]
        if rest and rest in "*+?":
            count, width = rest, 1
        elif found := COUNT.match(self.pattern, self.at):
            low, comma, high, only_high = found.groups()
            count = f"{{0,{int(only_high)}}}" if only_high else f"{{{int(low)}{comma}{high}}}"
            width = len(found.group())
        else:
            return part
        self.at += width
        # A lazy repetition allows the same whole texts as a greedy one.
        if self.pattern.startswith("?", self.at):
            self.at += 1
        elif self.pattern.startswith("+", self.at):
            raise self.refuse("+", "a possessive repetition is not regular")
        if self.pattern[self.at : self.at + 1] in ("*", "+", "?", "{"):
            raise self.refuse(self.pattern[self.at], "a repetition of a repetition")
        return _Repeat(part, count)

    def atom(self) -> _Node:
        pattern, at = self.pattern, self.at
        char = pattern[at]
        if char == "(":
            return self.group()
        if char in "^$":
            self.at += 1
            return _Anchor(char == "^", f"{char!r} at position {at}")
        if char == "[":
            found = _SET.match(pattern, at)
            if not found:
                raise self.refuse(pattern[at : at + 12], "a set of sets")
            return self.characters(found.group())
        if char == "\\":
            return self.escape()
        if char == ".":
            return self.characters(char)
        if char in "{*+?":
            raise self.refuse(char)
        return self.literal(char)

    def group(self) -> _Node:
        found = _GROUP.match(self.pattern, self.at)
        if not found:
            raise self.refuse(self.pattern[self.at : self.at + 4])
        self.at = found.end()
        inner = self.alternatives()
        self.at += 1  # the parenthesis that closes: `regex` has compiled the pattern
        return inner

    def escape(self) -> _Node:
        pattern, at = self.pattern, self.at
        char = pattern[at + 1]
        if char in "AZ":
            self.at += 2
            return _Anchor(char == "A", f"{pattern[at : at + 2]!r} at position {at}")
        for known in (_CODE, _CLASS):
            if found := known.match(pattern, at):
                return self.characters(found.group())
        if char.isascii() and not char.isalnum():
            self.at += 1
            return self.literal(char)
        raise self.refuse(pattern[at : at + 2])

    def literal(self, char: str) -> _Node:
        if "\ud800" <= char <= "\udfff":
            raise self.refuse(char, "half a character")
        if "i" in self.flags:
            self.at += 1
            return _Set(_ranges(self.flags + regex.escape(char)))
        self.at += 1
        return _Set(f"\\x{{{ord(char):x}}}")

    def characters(self, text: str) -> _Node:
        self.at += len(text)
        return _Set(_ranges(self.flags + text))


@lru_cache(maxsize=1)
def _everything() -> str:
    return "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))


@lru_cache(maxsize=1024)
def _ranges(item: str) -> str:
    """All characters that a pattern for one character matches."""
    runs = [run.group() for run in regex.finditer(_with_repeat(item), _everything())]
    if not runs:
        return r"[^\x{0}-\x{10ffff}]"
    return "[" + "".join(f"\\x{{{ord(r[0]):x}}}-\\x{{{ord(r[-1]):x}}}" for r in runs) + "]"


def _with_repeat(item: str) -> str:
    flags = _FLAGS.match(item)
    end = flags.end() if flags else 0
    return f"{item[:end]}(?:{item[end:]})+"


def _write(node: _Node, start: bool, end: bool) -> str:
    """The node as text; `start` and `end` say whether it touches that end of the whole text."""
    if isinstance(node, _Set):
        return node.ranges
    if isinstance(node, _Anchor):
        if start if node.start else end:
            return ""
        raise NotRegular(f"{node.where}: an anchor inside the pattern")
    if isinstance(node, _Choice):
        return "(?:" + "|".join(_write(part, start, end) for part in node.parts) + ")"
    if isinstance(node, _Repeat):
        inner = _write(node.part, False, False)
        single = isinstance(node.part, _Set | _Choice)
        return (inner if single else f"(?:{inner})") + node.count
    parts = node.parts
    first = next((i for i, part in enumerate(parts) if not _is_empty(part)), len(parts))
    last = next((i for i in range(len(parts), 0, -1) if not _is_empty(parts[i - 1])), 0)
    return "".join(
        _write(part, start and i <= first, end and i >= last - 1) for i, part in enumerate(parts)
    )


def _is_empty(node: _Node) -> bool:
    return isinstance(node, _Anchor) or (
        isinstance(node, _Sequence) and all(_is_empty(part) for part in node.parts)
    )
