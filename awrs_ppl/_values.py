"""Values of any kind, as keys, as JSON, and as columns."""

from __future__ import annotations

import dataclasses
import math
import operator
import sys
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from awrs_ppl._messages import quoted, safe_repr
from awrs_ppl.errors import ModelError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "count_of",
    "is_number",
    "is_pydantic",
    "key",
    "plain",
    "same",
    "series",
    "whole",
]


_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})


def key(value: Any, rest: Callable[[Any], Any] | None = None) -> Any:
    """The value if it can be hashed, else a frozen copy; one key for all NaNs.

    Arrays and tensors go by their elements, in any nesting; what is of no type that is known here
    by `rest`, its repr by default.

    >>> key({"b": [1, 2], "a": {3}})
    (('a', frozenset({3})), ('b', (1, 2)))
    >>> key((np.array([1, 2]), "a"))
    ((1, 2), 'a')
    """
    if type(value) in _PLAIN:
        return math.nan if value != value else value
    if _is_nan(value):
        return math.nan
    if (listed := _listed(value)) is not value:
        return key(listed, rest)
    if isinstance(value, tuple):
        items = tuple([key(item, rest) for item in value])
        changed = any(a is not b for a, b in zip(items, value, strict=True))
        return items if changed else value
    if _is_record(value) and _is_odd(value):
        return _frozen(value, rest)  # a tensor in it would be hashed by its address
    try:
        hash(value)
    except TypeError:
        return _frozen(value, rest)
    return value


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, as Python sees it; arrays and tensors as lists of their
    elements, in any nesting, and NaN is NaN.

    >>> same({"a": np.array([1, math.nan])}, {"a": np.array([1.0, math.nan])})
    True
    >>> same(np.array([1, 2]), np.array([1, 3])), same([1], (1,)), same(1, True)
    (False, False, True)
    """
    if type(first) in _PLAIN and type(second) in _PLAIN:
        return first == second or (first != first and second != second)
    one, other = _listed(first), _listed(second)
    if one is not first or other is not second:
        return same(one, other)
    if _is_nan(first) or _is_nan(second):
        return _is_nan(first) and _is_nan(second)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        kinds = isinstance(first, list) == isinstance(second, list)
        return kinds and len(first) == len(second) and all(map(same, first, second))
    alike = type(first) is type(second) is not type and _is_record(first)
    # Where nothing is odd, Pydantic's own equality decides, which may be the user's.
    if alike and (dataclasses.is_dataclass(first) or _is_odd(first) or _is_odd(second)):
        first, second = _fields(first), _fields(second)
    if isinstance(first, list | tuple | dict) != isinstance(second, list | tuple | dict):
        return False  # numpy's numbers look inside
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    try:
        return bool(first == second)
    except Exception:  # of a comparison by element
        return type(first) is type(second) and key(first) == key(second)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | complex | Decimal | np.inexact) and bool(value != value)


def _is_array(value: Any) -> bool:
    """Whether it is an array of numpy, a tensor of torch, or something like them."""
    kind = type(value)
    scalar = isinstance(value, np.generic)
    return hasattr(kind, "__array__") and hasattr(kind, "tolist") and not scalar


def _listed(value: Any) -> Any:
    """Arrays as nested lists, tables of pandas as dicts; else the value."""
    kind = type(value)
    if kind.__module__.partition(".")[0] == "pandas" and hasattr(kind, "to_dict"):
        return value.to_dict()
    if not _is_array(value):
        return value
    try:
        return value.tolist()
    except Exception:  # a sparse tensor, or one without data
        return value


def _is_odd(value: Any) -> bool:
    """Whether there are arrays or NaNs in it, which Python does not see as equal."""
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_is_odd, value))
    if isinstance(value, dict):
        return any(map(_is_odd, value.values()))
    if _is_record(value):
        return any(map(_is_odd, _fields(value).values()))
    return _is_array(value) or _is_nan(value)


def _is_record(value: Any) -> bool:
    """Whether it is a dataclass or a Pydantic object, or the class of one."""
    kind = value if isinstance(value, type) else type(value)
    return dataclasses.is_dataclass(kind) or is_pydantic(kind)


def is_pydantic(kind: type) -> bool:
    """Whether a class is a model of Pydantic."""
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_fields")


def _fields(value: Any) -> dict[str, Any]:
    """What dataclasses and Pydantic objects are compared by; nothing of a class."""
    if isinstance(value, type):
        return {}
    if is_pydantic(type(value)):
        hidden = getattr(value, "__pydantic_private__", None) or {}
        names = [*type(value).model_fields, *(value.model_extra or {}), *hidden]
    else:
        names = [field.name for field in dataclasses.fields(value) if field.compare]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _frozen(value: Any, rest: Callable[[Any], Any] | None) -> Any:
    if isinstance(value, list):
        return tuple([key(item, rest) for item in value])
    if isinstance(value, set):
        return frozenset([key(item, rest) for item in value])
    if isinstance(value, dict):
        items = [(name, key(item, rest)) for name, item in value.items()]
        if all(isinstance(name, str) for name in value):
            return tuple(sorted(items, key=lambda item: item[0]))
        return frozenset(items)
    if _is_record(value):
        fields = _fields(value).items()
        return (type(value).__qualname__, *[(name, key(item, rest)) for name, item in fields])
    return rest(value) if rest is not None else _shown(value)


def _shown(value: Any) -> str:
    # The repr of an array leaves out digits and its middle.
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return safe_repr(value)


def plain(value: Any) -> Any:
    """What `json` can write, strictly: the rest by its `repr`.

    >>> plain([-math.inf, (1, None), {2}])
    ['-inf', [1, None], '{2}']
    """
    if isinstance(value, np.bool_ | np.integer | np.floating):
        value = value.item()
    elif _is_array(value):
        value = _listed(value)
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
