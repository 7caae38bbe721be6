r"""Which patterns of the package `regex` are regular, and the same in a syntax all engines share.

Dialects differ in what `\d`, `$`, `[a&&b]` or `(?i)k` mean. Here every set of characters is
found by `regex` itself and written as plain ranges, so that what is left (sequences, `|` and
repetition) has one meaning everywhere. What is not surely regular is rejected.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import regex

from awrs_ppl._messages import shorten
from awrs_ppl.potentials.regex.tree import (
    Assertion,
    Characters,
    Choice,
    Flags,
    Group,
    Node,
    Pattern,
    Reference,
    Repeat,
    Sequence,
    write,
)

__all__ = ["NotRegular", "translate"]


class NotRegular(Exception):
    """A pattern is not regular, or not in the part of the syntax whose meaning is certain."""


def translate(pattern: Pattern) -> str:
    r"""The same language with explicit sets of characters, without anchors, groups and flags.

    `pattern` must be one that `regex` compiles. Raises `NotRegular`, naming the construct.

    >>> from awrs_ppl.potentials.regex.syntax import parse
    >>> print(translate(parse(r"^(?P<word>[a-c]x)*?\Z|[[:digit:]]{,2}")))
    (?:(?:[\x{61}-\x{63}]\x{78})*|[\x{30}-\x{39}]{0,2})
    """
    first: Node = pattern.tree
    while isinstance(first, Choice | Sequence) and first.parts:
        first = first.parts[0]
    # Flags that only change sets of characters, and only at the start: elsewhere their scope
    # differs.
    flags = first.text if isinstance(first, Flags) and first.at == 0 else ""
    return _Writer(flags if _FLAGS.fullmatch(flags) else "").write(pattern.tree, True, True)


_FLAGS = re.compile(r"\(\?[aisu]+\)")
_CODE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})")
_CLASS = re.compile(r"\\(?:[wWdDsStnrfva]|[pP]\{\^?\w[\w ]*(?:[=:][\w ]+)?\})")
# A set without sets in it, as `[a]b]`, `[a&&[b]]` and `[[a]]` are read in different ways. Operators
# are harmless: `regex` says what they mean.
_SET = re.compile(r"\[\^?+(?:\\.|\[:\^?\w+:\]|[^\[\]\\])(?:\\.|\[:\^?\w+:\]|[^\[\]\\])*\]", re.S)
_STARTS, _ENDS = ("^", r"\A"), ("$", r"\Z", r"\z")


class _Writer:
    def __init__(self, flags: str) -> None:
        self._flags = flags

    def write(self, node: Node, start: bool, end: bool) -> str:
        """The node as text; `start` and `end` say whether it touches that end of the whole text."""
        if isinstance(node, Characters):
            return self._characters(node)
        if isinstance(node, Assertion) and node.text in (*_STARTS, *_ENDS):
            if start if node.text in _STARTS else end:
                return ""
            raise _not_regular(node, "an anchor inside the pattern")
        if isinstance(node, Choice):
            return "(?:" + "|".join(self.write(part, start, end) for part in node.parts) + ")"
        if isinstance(node, Group) and (node.captures or node.head == "(?:"):
            return self.write(node.part, start, end)
        if isinstance(node, Flags) and node.at == 0 and self._flags:
            return ""
        # A lazy repetition allows the same whole texts as a greedy one.
        if isinstance(node, Repeat) and node.mode != "+":
            inner = self.write(node.part, False, False)
            single = isinstance(_inside(node.part), Characters | Choice)
            return (inner if single else f"(?:{inner})") + node.count
        if not isinstance(node, Sequence):
            raise _not_regular(node)
        parts = node.parts
        first = next((i for i, part in enumerate(parts) if not _is_empty(part)), len(parts))
        last = next((i for i in range(len(parts), 0, -1) if not _is_empty(parts[i - 1])), 0)
        return "".join(
            self.write(part, start and i <= first, end and i >= last - 1)
            for i, part in enumerate(parts)
        )

    def _characters(self, node: Characters) -> str:
        text = node.text
        if len(text) == 2 and text[0] == "\\" and text[1].isascii() and not text[1].isalnum():
            text = text[1]
        elif text == ".":
            return _ranges(self._flags + text)
        if len(text) == 1:
            if "\ud800" <= text <= "\udfff":
                raise _not_regular(node, "half a character")
            if "i" in self._flags:
                return _ranges(self._flags + regex.escape(text))
            return f"\\x{{{ord(text):x}}}"
        if text[0] == "[" and not _SET.fullmatch(text):
            raise _not_regular(node, "a set of sets")
        if text[0] == "\\" and not (_CODE.fullmatch(text) or _CLASS.fullmatch(text)):
            raise _not_regular(node)
        return _ranges(self._flags + text)


def _not_regular(node: Node, why: str = "this may not be regular") -> NotRegular:
    text = node.text if isinstance(node, Reference) else write(node)
    shown = shorten(text, 13, tail=0)
    at = getattr(node, "at", 0)
    return NotRegular(f"{shown!r} at position {at}: {why}")


@lru_cache(maxsize=1)
def _everything() -> str:
    codes = np.concatenate([np.arange(0xD800), np.arange(0xE000, 0x110000)])
    return codes.astype("<u4").tobytes().decode("utf-32-le")


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


def _inside(node: Node) -> Node:
    while isinstance(node, Group):
        node = node.part
    return node


def _is_empty(node: Node) -> bool:
    inner = _inside(node)
    return isinstance(inner, Assertion | Flags) or (
        isinstance(inner, Sequence) and all(map(_is_empty, inner.parts))
    )
