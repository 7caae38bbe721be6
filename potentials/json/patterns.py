"""Regular expressions of ECMA 262, as JSON Schema has them, read once.

They are read in the syntax with the flag `u`, and with what annex B allows where that can mean
one thing only: `\\-` outside a set, a single `{`, `}` or `]`. Every set of characters becomes a
list of ranges, so that neither the package `regex`, which checks, nor llguidance, which masks,
reads it in a way of its own.
"""

from __future__ import annotations

import re
from functools import lru_cache

import regex

from awrs_ppl.potentials.json import characters
from awrs_ppl.potentials.json.characters import (
    ANY,
    DIGITS,
    LINE_ENDS,
    SPACE,
    WORD,
    Ranges,
    complement,
    one,
    union,
)
from awrs_ppl.potentials.json.pattern_nodes import (
    Alternatives,
    Backreference,
    Edge,
    Group,
    Look,
    Node,
    Repeat,
    Sequence,
    written,
)

__all__ = ["parse", "source"]

_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_REMEDIES = {
    **{"A": "^", "Z": "$", "z": "$", "a": r"\x07", "e": r"\x1b"},
    **{"h": r"[ \t]", "R": r"\r?\n", "": r"\\ for a backslash"},
}


@lru_cache(maxsize=1024)
def parse(pattern: str) -> Node:
    """The pattern; `ValueError` with the position and a remedy where it is none of ECMA 262."""
    reader = _Reader(pattern)
    try:
        return reader.whole()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


@lru_cache(maxsize=1024)
def source(pattern: str) -> str:
    """The pattern for the package `regex`, without flags."""
    return written(parse(pattern))


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.flags = frozenset[str]()
        self.groups = 0
        self.has_empty_set = False
        self.total, self.named = _groups(pattern)

    def whole(self) -> Node:
        node = self.alternatives()
        if self.at < len(self.pattern):
            raise self.wrong("unmatched )", r"\)")
        return node

    # --- what is at hand ------------------------------------------------------------------

    def peek(self, size: int = 1) -> str:
        return self.pattern[self.at : self.at + size]

    def take(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def match(self, expression: str) -> re.Match[str] | None:
        found = re.compile(expression).match(self.pattern, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def wrong(self, what: str, instead: str = "") -> ValueError:
        shown = f"{what} at position {self.at}, before {self.pattern[self.at : self.at + 12]!r}"
        remedy = f": write {instead}" if instead else ""
        return ValueError(f"{shown}{remedy} (patterns are regular expressions of ECMA 262)")

    # --- structure ------------------------------------------------------------------------

    def alternatives(self) -> Node:
        options = [self.sequence()]
        while self.take("|"):
            options.append(self.sequence())
        return options[0] if len(options) == 1 else Alternatives(tuple(options))

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            part = self.term()
            parts.append(part if isinstance(part, Edge) else self.quantified(part))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def quantified(self, part: Node) -> Node:
        if found := self.match(r"[*+?]"):
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[0]]
        elif found := self.match(r"\{(\d+)(,?)(\d*)\}"):
            low = int(found[1])
            high = low if not found[2] else int(found[3]) if found[3] else None
            if high is not None and high < low:
                raise self.wrong(f"the counts of {found[0]} are out of order")
        else:
            return part
        return Repeat(part, low, high, self.take("?"))

    def term(self) -> Node:
        character = self.peek()
        if character == "(":
            return self.group()
        if character == "[":
            return self.set()
        if character == "\\":
            return self.escape()
        if character in "*+?" or re.match(r"\{\d+,?\d*\}", self.pattern[self.at :]):
            raise self.wrong("nothing to repeat", f"\\{character} for the character")
        if re.match(r"\{,\d+\}", self.pattern[self.at :]):
            raise self.wrong("a repetition without a lower count", "{0,n}")
        self.at += 1
        if character == ".":
            return ANY if "s" in self.flags else complement(LINE_ENDS)
        if character in "^$":
            return self.edge(character)
        if character == "]" and self.has_empty_set:
            raise self.wrong("[] is the set of no characters", r"[\]…] for a set with a ]")
        return self.folded(one(ord(character)))

    def edge(self, kind: str) -> Node:
        if "m" not in self.flags:
            return Edge(kind)
        # At a line's edge there is no other character than an end of line.
        return Look(kind == "$", True, complement(LINE_ENDS))

    def group(self) -> Node:
        self.at += 1
        before = self.flags
        number = 0
        kind = ""
        if found := self.match(r"\?(<?[=!])"):
            kind = found[1]
        elif found := self.match(r"\?<([\w$]+)>"):
            number = self.groups = self.groups + 1
        elif found := self.match(r"\?([ims]*)(?:-([ims]*))?:"):
            on, off = set(found[1]), set(found[2] or "")
            self.flags = (self.flags | on) - off
        elif self.peek() == "?":
            raise self.wrong(
                f"({self.peek(3)} is not of ECMA 262",
                "(?<name>…) for a named group, (?i:…) for flags, (?:…) otherwise",
            )
        else:
            number = self.groups = self.groups + 1
        body = self.alternatives()
        if not self.take(")"):
            raise self.wrong("missing )", r"\( for the character")
        self.flags = before
        if kind:
            return Look(kind[0] != "<", kind[-1] == "!", body)
        return Group(number, body) if number else body

    # --- characters -----------------------------------------------------------------------

    def folded(self, ranges: Ranges) -> Ranges:
        return characters.folded(ranges) if "i" in self.flags else ranges

    def set(self) -> Ranges:
        opened = self.at
        self.at += 1
        if self.peek(2) in ("[:", "[=", "[."):
            raise self.wrong(f"{self.peek(2)} is not of ECMA 262", r"\p{…}, or \[ for a bracket")
        negative = self.take("^")
        self.has_empty_set |= self.peek() == "]"
        parts: list[Ranges] = []
        while not self.take("]"):
            low = self.member(opened)
            if self.peek() == "-" and self.peek(2) not in ("-]", "-"):
                self.at += 1
                high = self.member(opened)
                if not _is_one(low) or not _is_one(high):
                    parts += [low, one(45), high]  # annex B: no range, so a hyphen
                    continue
                if high[0][0] < low[0][0]:
                    raise self.wrong("a range out of order", r"\- for a hyphen")
                low = ((low[0][0], high[0][0]),)
            parts.append(low)
        ranges = self.folded(union(*parts))
        return complement(ranges) if negative else ranges

    def member(self, opened: int) -> Ranges:
        character = self.peek()
        if not character:
            self.at = opened
            raise self.wrong("missing ]", r"\[ for the character")
        if character == "\\":
            if self.take("\\b"):
                return one(8)
            if self.take("\\-"):
                return one(45)
            return self.class_or_character()
        self.at += 1
        return one(ord(character))

    def escape(self) -> Node:
        if found := self.match(r"\\([bB])"):
            # By sets, so that flags change nothing.
            return Edge(found[1])
        if found := self.match(r"\\([1-9]\d*)"):
            if int(found[1]) > self.total:
                self.at = found.start()
                raise self.wrong(f"there is no group {found[1]}")
            return Backreference(int(found[1]))
        if found := self.match(r"\\k<([^>]*)>"):
            if found[1] not in self.named:
                self.at = found.start()
                raise self.wrong(f"there is no group {found[1]!r}")
            return Backreference(self.named[found[1]])
        return self.folded(self.class_or_character())

    def class_or_character(self) -> Ranges:
        if found := self.match(r"\\([dDwWsS])"):
            ranges = {"d": DIGITS, "w": WORD, "s": SPACE}[found[1].lower()]
            return ranges if found[1].islower() else complement(ranges)
        if found := self.match(r"\\([pP])\{(\w+)(?:=(\w+))?\}"):
            return self.property(found)
        if found := self.match(r"\\([tnvfr])"):
            return one(_CONTROLS[found[1]])
        if found := self.match(r"\\c([a-zA-Z])"):
            return one(ord(found[1]) % 32)
        if found := self.match(r"\\0(?!\d)"):
            return one(0)
        if found := self.match(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"):
            high, low = int(found[1], 16), int(found[2], 16)
            return one(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)
        if found := self.match(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]+)\})"):
            code = int(next(filter(None, found.groups())), 16)
            if code <= 0x10FFFF:
                return one(code)
            raise self.wrong(f"{found[0]} is no character")
        if found := self.match(r"\\([^\w]|_)"):
            return one(ord(found[1]))
        letter = self.peek(2)[1:]
        remedy = _REMEDIES.get(letter, f"{letter} without the backslash")
        raise self.wrong(f"\\{letter} is no escape of ECMA 262", remedy)

    def property(self, found: re.Match[str]) -> Ranges:
        name = found[2] if found[3] is None else f"{found[2]}={found[3]}"
        try:
            ranges = characters.found(rf"\p{{{name}}}")
        except regex.error as error:
            self.at = found.start()
            raise self.wrong(f"no property of characters is called {name!r}") from error
        return ranges if found[1] == "p" else complement(ranges)


def _is_one(ranges: Ranges) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]


def _groups(pattern: str) -> tuple[int, dict[str, int]]:
    """How many groups capture, and the numbers of those with names."""
    total, named = 0, {}
    for found in re.finditer(
        r"\\.|\[(?:\\.|[^\]\\])*\]|(?P<open>\((?!\?)|\(\?<(?![=!])(?P<name>[^>]*)>)",
        pattern,
        re.DOTALL,
    ):
        if found["open"]:
            total += 1
            if found["name"]:
                named[found["name"]] = total
    return total, named
