"""Values as texts to read: laid out over lines, made visible, and cut where they differ.

A text of several lines keeps its lines; dicts, lists, dataclasses, objects of Pydantic and JSON are
indented if one line is too short for them. Of what is too long the start stays, and what
separates it from the others that are cut: no two different values look alike.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from awrs_ppl._messages import cells_of, escape, safe_repr
from awrs_ppl.posterior._style import ACCENTS, flat, is_accent

if TYPE_CHECKING:
    from awrs_ppl.program.trace import Trace

__all__ = ["Text", "cut", "partial_text", "texts", "wrapped"]

_LEAST = 4  # lines that each value has at least
_GAP = 100  # characters: less is not left out
_BEFORE, _AFTER = 12, 28  # characters that are shown around a difference
_DEPTH, _SHORT = 12, 20
_END = "\\n"
_QUOTES = ("'", '"')


class Text(NamedTuple):
    """A value to show: every character printable but the ends of lines; whether some were left
    out; whether it is in quotes, so that its lines begin behind one."""

    text: str
    is_cut: bool
    is_quoted: bool


def texts(values: Sequence[Any], width: int, lines: int | None = None) -> list[Text]:
    """Values as texts, together in about `lines` lines of `width` cells; None: nothing is cut.

    >>> [shown.text for shown in texts(["a\\x1b", {"b": 1}], 40)]
    ["'a\\\\x1b'", "{'b': 1}"]
    >>> print(texts(["Roses are red,\\nviolets are blue"], 40)[0].text)
    'Roses are red,
    violets are blue'
    """
    shown = cut([_laid_out(value, width) for value in values], width, lines)
    # The exact repr separates what looks alike otherwise: a tab, and a backslash with a t.
    count = Counter(shown)
    alike = [i for i, text in enumerate(shown) if count[text] > 1]
    exact = [safe_repr(values[i]) for i in alike]
    for i, text in zip(alike, cut(exact, width, lines), strict=True):
        shown[i] = text
    return shown


def partial_text(trace: Trace, width: int) -> str:
    """What an unfinished particle has so far: its choices by name, and the text in progress."""
    found = [(name, _laid_out(value, width)) for name, value in trace.drawn]
    if trace.partial is not None:
        name, text, is_over = trace.partial
        found.append((name, _quoted(text) if is_over else f"{_quoted(text)[:-1]}…"))
    if len(found) == 1:
        return found[0][1]
    return "\n".join(f"{name}: {text}" for name, text in found)


def cut(raws: Sequence[str], width: int, lines: int | None) -> list[Text]:
    """Texts made visible, together in about `lines` lines of `width` cells."""
    return [
        Text(_visible(pieces), len(pieces) > 1, pieces[0][:1] in _QUOTES)
        for pieces in _cut(raws, width, lines)
    ]


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken behind blanks where there are any."""
    lines = []
    for line in text.split("\n"):
        while (end := _fitting(line, width)) < len(line):
            blank = line.rfind(" ", width // 2, end) + 1
            lines.append(line[: blank or end])
            line = line[blank or end :]
        lines.append(line)
    return lines


# --- layout ---------------------------------------------------------------------------------


def _laid_out(value: Any, width: int) -> str:
    """A value over as many lines as it takes; its characters are not made visible yet."""
    if type(value) is not str:
        return _indented(value, width, safe_repr)
    if len(value) > width and value.lstrip()[:1] in ("{", "[") and "\n" not in value:
        read = _json(value)
        if read is not None:
            return _indented(read, width, _dumped)
    return _quoted(value)


def _quoted(text: str) -> str:
    """A text in the quotes of its repr, with its own lines; but ends of lines before and behind
    everything stay in the first and the last."""
    quote = '"' if "'" in text and '"' not in text else "'"
    inside = text.strip("\n")
    before, after = text.partition(inside)[::2] if inside else ("", text)
    *lines, last = inside.split("\n")
    lines = [line.rstrip(" ") + "·" * (len(line) - len(line.rstrip(" "))) for line in lines]
    inside = "\n".join([*lines, last])  # the quote shows the blanks at the end of the last
    return f"{quote}{len(before) * _END}{inside}{len(after) * _END}{quote}"


def _json(text: str) -> Any:
    """The content of a text of JSON; None if it would not say the same written anew."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    packed = re.sub(r'("(?:[^"\\]|\\.)*")|\s+', r"\1", text)
    for is_ascii in (False, True):
        if json.dumps(read, ensure_ascii=is_ascii, separators=(",", ":")) == packed:
            return read
    return None


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _indented(value: Any, width: int, written: Callable[[Any], str], depth: int = 0) -> str:
    line = written(value)
    if depth == _DEPTH or (len(line) + 2 * depth <= width and "\n" not in line):
        return line
    parts = _parts(value, written)
    if parts is None:
        return line
    opening, items, closing = parts
    pad = "  " * depth
    inside = [f"{label}{_indented(item, width, written, depth + 1)}" for label, item in items]
    if not any(label or "\n" in text for (label, _), text in zip(items, inside, strict=True)):
        inside = _filled(inside, max(_SHORT, width - 2 * depth - 2))
        inside = "\n".join(f"{pad}  {line}" for line in inside)
    else:
        inside = ",\n".join(f"{pad}  {line}" for line in inside)
    comma = "," if type(value) is tuple and len(items) == 1 else ""
    return "\n".join([opening, inside + comma, pad + closing])


def _filled(items: Sequence[str], width: int) -> list[str]:
    """Items with commas between, as many to a line as fit."""
    lines = [""]
    for i, item in enumerate(items):
        more = item + ("," if i < len(items) - 1 else "")
        if lines[-1] and len(lines[-1]) + 1 + len(more) > width:
            lines.append("")
        lines[-1] += f" {more}" if lines[-1] else more
    return lines


def _parts(
    value: Any, written: Callable[[Any], str]
) -> tuple[str, list[tuple[str, Any]], str] | None:
    """Brackets and labelled items of a collection or record; None of anything else."""
    kind = type(value)
    items: list[tuple[str, Any]] = []
    opening, closing = f"{kind.__qualname__}(", ")"
    own = getattr(kind.__repr__, "__wrapped__", None)  # dataclasses make theirs so
    if kind is dict:
        opening, closing = "{", "}"
        items = [(f"{written(name)}: ", item) for name, item in value.items()]
    elif kind in (list, tuple, set):
        opening, closing = {list: "[]", tuple: "()", set: "{}"}[kind]
        items = [("", item) for item in value]
    elif dataclasses.is_dataclass(kind) and own is not None:
        shown = [field.name for field in dataclasses.fields(kind) if field.repr]
        items = [(f"{name}=", getattr(value, name, None)) for name in shown]
    elif getattr(kind.__repr__, "__module__", None) == "pydantic.main":
        items = [(f"{name}=" if name else "", item) for name, item in value.__repr_args__()]
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        items = [(f"{name}=", item) for name, item in zip(kind._fields, value, strict=True)]
    return (opening, items, closing) if items else None


# --- cutting --------------------------------------------------------------------------------


def _cut(raws: Sequence[str], width: int, lines: int | None) -> list[list[str]]:
    """Texts in pieces: every second one says how much is left out there."""
    if lines is None:
        return [[raw] for raw in raws]
    ends = [_line_ends(raw, width, 2 * lines + 1) for raw in raws]
    level = _level([len(found) for found in ends], lines)
    # What is cut is hard to read: it must save as much again.
    heads = {i: found[level - 1] for i, found in enumerate(ends) if len(found) > 2 * level}
    found = [[raw] for raw in raws]
    for i, head in heads.items():
        differences = {_agreement(raws[i], raws[j]) for j in heads if j != i}
        windows = [_window(raws[i], at) for at in sorted(differences) if at >= head]
        found[i] = _pieces(raws[i], [(0, head), *windows])
    return found


def _window(raw: str, at: int) -> tuple[int, int]:
    """What is shown of a difference: from where its line begins, if that is near."""
    begin = raw.rfind("\n", max(0, at - _GAP), at) + 1
    return begin or at - _BEFORE, at + _AFTER


def _pieces(raw: str, windows: Sequence[tuple[int, int]]) -> list[str]:
    """The windows of a text and what is left out between; those that nearly meet are one."""
    length, between = len(raw), "\n" if "\n" in raw else " "
    merged = [windows[0]]
    for start, end in (*windows[1:], (length, length)):
        first, last = merged[-1]
        if start - last <= _GAP:
            merged[-1] = first, max(last, min(end, length))
        else:
            merged.append((start, min(end, length)))
    found, at = [], 0
    for start, end in merged:
        if start > at:
            left = (
                f"{start - at:,} more characters"
                if start == length
                else (f"{start - at:,} characters …")
            )
            found.append(f"{between}[… {left}]{between if start < length else ''}")
        found.append(raw[start:end])
        at = end
    return found


def _visible(pieces: Sequence[str]) -> str:
    text = "".join(pieces)
    return "\n".join(flat(escape(line)) for line in text.split("\n"))


def _level(needs: Sequence[int], lines: int) -> int:
    """The most lines that each may have so that all together have about `lines`."""
    level = lines
    while level > _LEAST and sum(min(need, level) for need in needs) > lines:
        level -= 1
    return level


def _line_ends(text: str, width: int, most: int) -> list[int]:
    """Where the lines of a text end if it is wrapped, up to some."""
    ends, used, pile = [], 0, 0
    for i, char in enumerate(text):
        pile = pile + 1 if is_accent(char) else 0
        size = _size(char) if pile <= ACCENTS else 6
        if char == "\n" or used + size > width:
            ends.append(i)
            used = 0
            if len(ends) > most:
                return ends
        used += 0 if char == "\n" else size
    return [*ends, len(text)]


def _size(char: str) -> int:
    """The cells of a character that is made visible."""
    if " " <= char <= "~":
        return 1
    return cells_of(char) if char.isprintable() else len(escape(char))


def _fitting(line: str, width: int) -> int:
    used = 0
    for i, char in enumerate(line):
        used += cells_of(char)
        if used > width:
            return max(i, 1)
    return len(line)


def _agreement(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
