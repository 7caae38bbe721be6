"""Regular expressions of llguidance for the strings of JSON documents.

They say what the mask allows: every spelling that the check allows, and perhaps more.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from awrs_ppl.potentials.json.characters import ANY, Ranges, intersection
from awrs_ppl.potentials.json.formats import OUTLINES
from awrs_ppl.potentials.json.pattern_nodes import (
    Alternatives,
    Edge,
    Group,
    Look,
    Node,
    Repeat,
    Sequence,
)
from awrs_ppl.potentials.json.patterns import parse

__all__ = ["ANYTHING", "literal", "matching", "strings"]

# Longest counted repetition of characters that a mask follows.
COUNT = 5_000
# Most ways in which a pattern may begin and end.
VARIANTS = 64

_HEX = "[0-9a-fA-F]"
_LOW = rf"\\u(?:[0-9a-ce-fA-CE-F]{_HEX}{{3}}|[dD][0-7]{_HEX}{{2}})"
_PAIR = rf"\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}"
_ASCII = rf"\\u00[0-7]{_HEX}"
_SHORT = {
    **{8: "b", 9: "t", 10: "n", 12: "f", 13: "r"},
    **{34: r"\x22", 47: r"\x2f", 92: r"\x5c"},
}
_RAW: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF))
# In no JSON document.
_NOTHING = r"\x00"


@lru_cache(maxsize=512)
def _character(ranges: Ranges, exact: bool = False) -> str:
    """A character out of a set, as strings have it; `exact` leaves out what may be another."""
    options = [_set(raw)] if (raw := intersection(ranges, _RAW)) else []
    if short := [mark for code, mark in _SHORT.items() if intersection(ranges, ((code, code),))]:
        options.append(rf"\\[{''.join(short)}]")
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        options.append(_escape(ranges[0][0]))
    elif ranges and not exact:
        if ranges[-1][1] < 0x80:
            options.append(_ASCII)
        else:
            options += [_LOW] * (ranges[0][0] <= 0xFFFF) + [_PAIR] * (ranges[-1][1] > 0xFFFF)
    return f"(?:{'|'.join(options or [_NOTHING])})"


def _set(ranges: Ranges) -> str:
    pairs = [(_code(low), _code(high)) for low, high in ranges]
    if len(pairs) == 1 and pairs[0][0] == pairs[0][1]:
        return pairs[0][0]
    return f"[{''.join(low if low == high else f'{low}-{high}' for low, high in pairs)}]"


def _code(code: int) -> str:
    return chr(code) if chr(code).isascii() and chr(code).isalnum() else f"\\x{{{code:x}}}"


def _escape(code: int) -> str:
    units = chr(code).encode("utf-16-be", "surrogatepass").hex()
    digits = (f"[{d}{d.upper()}]" if d.isalpha() else d for d in units)
    marks = [rf"\\u{''.join(unit)}" for unit in zip(*[digits] * 4, strict=True)]
    return "".join(marks)


def literal(text: str) -> str:
    """A string without its quotes, in all spellings."""
    return "".join(_character(((ord(c), ord(c)),)) for c in text)


def _sized(low: int, high: int | None) -> str:
    """Strings by their numbers of characters, with their quotes."""
    low = low if low <= COUNT else 0
    limit = "" if high is None or high > COUNT else high
    return rf"\x22{_character(ANY)}{{{low},{limit}}}\x22"


@lru_cache(maxsize=512)
def matching(pattern: str, exact: bool = False) -> str | None:
    """Strings that a pattern matches somewhere, with their quotes, and perhaps some others.

    With `exact` some of those that it matches, and no others; None if that cannot be said.
    """
    node = parse(pattern)
    try:
        options = [_whole(variant, exact) for variant in _variants(node)]
    except _Inexact:
        return None
    return rf"\x22(?:{'|'.join(options)})\x22"


class _Inexact(Exception):
    """A part of a pattern is no regular expression."""


Variant = tuple[Node, ...]


def _variants(node: Node) -> list[Variant]:
    """The pattern as alternatives of parts, so that `^` and `$` stand at their ends if anywhere."""
    if isinstance(node, Alternatives):
        found = [variant for option in node.options for variant in _variants(option)]
    elif isinstance(node, Group):
        found = _variants(node.body)
    elif isinstance(node, Sequence):
        found: list[Variant] = [()]
        last = len(node.parts) - 1
        for i, part in enumerate(node.parts):
            own = _variants(part) if i in (0, last) else [(part,)]
            found = [(*before, *after) for before in found for after in own]
    else:
        return [(node,)]
    return found if len(found) <= VARIANTS else [(node,)]


def _whole(variant: Variant, exact: bool) -> str:
    rest = f"{_character(ANY, exact)}*"
    start, end = Edge("^"), Edge("$")
    begun, ended = start in variant[:1], end in variant[-1:]
    parts = variant[1 if begun else 0 : len(variant) - 1 if ended else None]
    body = "".join(_spelled(part, exact) for part in parts)
    return f"{'' if begun else rest}{body}{'' if ended else rest}"


def _spelled(node: Node, exact: bool) -> str:
    if isinstance(node, tuple):
        return _character(node, exact)
    if isinstance(node, Sequence):
        return "".join(_spelled(part, exact) for part in node.parts)
    if isinstance(node, Alternatives):
        return f"(?:{'|'.join(_spelled(option, exact) for option in node.options)})"
    if isinstance(node, Group):
        return _spelled(node.body, exact)
    if isinstance(node, Repeat):
        high = "" if node.high is None else node.high
        return f"(?:{_spelled(node.body, exact)}){{{node.low},{high}}}"
    if exact:
        raise _Inexact
    # What is around a place says less where it is left out; a reference can be to any text.
    return "" if isinstance(node, Edge | Look) else f"{_character(ANY)}*"


def strings(schemas: list[dict[str, Any]], *, patterns: bool) -> list[str]:
    """Expressions that all match where the keywords of the schemas hold."""
    found: list[str | None] = []
    for schema in schemas:
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        if low or high is not None:
            found.append(_sized(int(low), None if high is None else int(high)))
        if patterns:
            kept = [schema.get("pattern"), OUTLINES.get(schema.get("format", ""))]
            found += [matching(pattern) for pattern in kept if pattern is not None]
    return [text for text in found if text is not None] or [ANYTHING]


ANYTHING = _sized(0, None)
