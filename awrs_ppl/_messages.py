"""Values and texts in messages: made printable, quoted, and shortened."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

__all__ = ["cells_of", "escape", "joined", "listed", "quoted", "safe_repr", "shorten", "show"]


def safe_repr(value: Any) -> str:
    """The `repr`, whatever it does."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"


def escape(text: str) -> str:
    """Control characters, bidirectional marks, lone surrogates and the like made visible.

    >>> print(escape("a\\u202eb\\n"))
    a\\u202eb\\n
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def shorten(text: str, width: int, *, tail: int | None = None) -> str:
    """At most `width` cells of a terminal, the middle left out; a wide character takes two.

    Of the end `tail` cells stay, by default a third.

    >>> shorten("abcdefghijkl", 7), shorten("abcdefghijkl", 7, tail=0)
    ('abcd…kl', 'abcdef…')
    """
    if len(text) <= width and sum(map(cells_of, text)) <= width:
        return text
    cells = (width - 1) // 3 if tail is None else tail
    end = _fitting(text[: -width - 1 : -1], cells)[::-1]
    return f"{_fitting(text[:width], width - 1 - cells)}…{end}"


def quoted(value: Any) -> str:
    """How a message quotes any value: its repr in one line, the middle left out if it is long.

    >>> quoted(["a"] * 99)
    "['a', 'a', 'a', 'a', 'a', 'a', 'a', 'a',…'a', 'a', 'a', 'a']"
    """
    return shorten(re.sub(r"\s*\n\s*", " ", safe_repr(value)), 60)


def show(text: str | bytes) -> str:
    """How a message quotes a text: its repr, the middle left out if it is long.

    >>> show("naïve".encode()), show(b"\\xff")
    ("'naïve'", "'\\\\udcff'")
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return shorten(repr(text), 60)


def listed(items: Sequence[Any], most: int) -> str:
    """How a message lists values: the first few.

    >>> listed("abc", 2), listed("abc", 3)
    ("'a', 'b', …", "'a', 'b', 'c'")
    """
    return ", ".join(map(repr, items[:most])) + (", …" if len(items) > most else "")


def joined(names: Sequence[str], last: str = "and") -> str:
    """Several names in a sentence.

    >>> joined(["a"]), joined(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _fitting(text: str, width: int) -> str:
    for i, char in enumerate(text):
        width -= cells_of(char)
        if width < 0:
            return text[:i]
    return text


def cells_of(char: str) -> int:
    """The cells of a terminal that a character takes."""
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
