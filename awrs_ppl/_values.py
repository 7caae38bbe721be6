"""Values of any kind, as keys, as JSON, as columns and as text that is safe to show."""

from __future__ import annotations

import math
import operator
import re
import unicodedata
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl.errors import ModelError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "count_of",
    "escape",
    "is_number",
    "key",
    "plain",
    "quoted",
    "safe_repr",
    "series",
    "shorten",
    "whole",
]


def key(value: Any) -> Any:
    """The value if it can be hashed, else a frozen copy; one key for all NaNs.

    >>> key({"b": [1, 2], "a": {3}})
    (('a', frozenset({3})), ('b', (1, 2)))
    """
    try:
        hash(value)
    except TypeError:
        return _frozen(value)
    return math.nan if isinstance(value, float) and math.isnan(value) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return key(value.tolist())
    if isinstance(value, list | tuple):
        return tuple(key(item) for item in value)
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, dict):
        items = [(name, key(item)) for name, item in value.items()]
        if all(isinstance(name, str) for name in value):
            return tuple(sorted(items, key=lambda item: item[0]))
        return frozenset(items)
    return safe_repr(value)


def plain(value: Any) -> Any:
    """What `json` can write, strictly: the rest by its `repr`.

    >>> plain([-math.inf, (1, None), {2}])
    ['-inf', [1, None], '{2}']
    """
    if isinstance(value, np.bool_ | np.integer | np.floating | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(float(value))
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: plain(item) for name, item in value.items()}
    return safe_repr(value)


def series(column: list[Any]) -> pd.Series:
    """A column as it is, typed where it has numbers only: no text or list is converted."""
    import pandas as pd

    cells = np.empty(len(column), dtype=object)
    for i, cell in enumerate(column):
        cells[i] = cell
    series = pd.Series(cells, dtype=object)
    numbers = all(cell is None or isinstance(cell, int | float | np.number) for cell in column)
    return series.infer_objects() if numbers else series


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


def shorten(text: str, width: int) -> str:
    """At most `width` cells of a terminal, the middle left out; a wide character takes two.

    >>> shorten("abcdefghijkl", 7)
    'abcd…kl'
    """
    if len(text) <= width and sum(map(_cells, text)) <= width:
        return text
    tail = _fitting(text[: -width - 1 : -1], (width - 1) // 3)[::-1]
    return f"{_fitting(text[:width], width - 1 - (width - 1) // 3)}…{tail}"


def is_number(value: Any) -> bool:
    """Whether it is a real number, numpy's included; True and False are none.

    >>> is_number(np.float32(1)), is_number(True)
    (True, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def count_of(value: Any, *, least: int) -> int | None:
    """The whole number of at least `least` that a value is, numpy's included; None if it is none.

    >>> count_of(np.int64(3), least=1), count_of(True, least=1), count_of(2.0, least=1)
    (3, None, None)
    """
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        return None
    try:
        number = operator.index(value)
    except TypeError:  # an array of several
        return None
    return number if number >= least else None


def whole(name: str, value: Any, *, least: int) -> int:
    """An option that is a whole number; `ModelError` names it otherwise."""
    number = count_of(value, least=least)
    if number is None:
        raise ModelError(f"{name}={quoted(value)}: it must be an int of at least {least}")
    return number


def quoted(value: Any) -> str:
    """How a message quotes any value: its repr in one line, the middle left out if it is long.

    >>> quoted(["a"] * 99)
    "['a', 'a', 'a', 'a', 'a', 'a', 'a', 'a',…'a', 'a', 'a', 'a']"
    """
    return shorten(re.sub(r"\s*\n\s*", " ", safe_repr(value)), 60)


def _fitting(text: str, width: int) -> str:
    for i, char in enumerate(text):
        width -= _cells(char)
        if width < 0:
            return text[:i]
    return text


def _cells(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
