"""Values as JSON and back, of the same types: what JSON has no word for is an object of one key.

`{"tuple": [1, 2]}` is `(1, 2)`, `{"float": "-inf"}` an infinity. No type is looked up by a name
that stands in a file, but those of the table below.
"""

from __future__ import annotations

import dataclasses
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from awrs_ppl._messages import quoted
from awrs_ppl._values import is_pydantic

__all__ = ["MOST_DEPTH", "NotPlain", "decoded", "encoded", "type_name"]

# So that a file can be read wherever it can be written: Python's own limit is 1000 calls.
MOST_DEPTH = 100
_MOST_EXACT = 2**53  # larger ints are other numbers where JSON is read as float64
# Two lone surrogates that JSON would read as one character.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_NUMPY = {
    kind.__name__: kind
    for kind in (
        *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.longlong),
        *(np.uint8, np.uint16, np.uint32, np.uint64, np.ulonglong),
        *(np.float16, np.float32, np.float64, np.complex64, np.complex128),
        *(np.str_, np.bytes_),
    )
}


class NotPlain(TypeError):
    """A value has a part that cannot be saved; the message says which."""


def encoded(value: Any, *, hashed: bool = False, depth: int = 0) -> Any:
    """What `json` can write, strictly, and `decoded` reads; `hashed` in a set or as a key.

    Raises `NotPlain` for a part of another type, subclasses of plain types included, which would
    come back as something else, and for a value that is nested `MOST_DEPTH` deep or has itself
    as a part.

    >>> encoded((1, [None, float("inf")]))
    {'tuple': [1, [None, {'float': 'inf'}]]}
    """
    kind, depth = type(value), depth + 1
    if depth > MOST_DEPTH:
        raise NotPlain(f"it is nested more than {MOST_DEPTH} deep, or has itself as a part")
    if value is None or kind is bool:
        return value
    if kind is str:
        return {"str": list(map(ord, value))} if _PAIR.search(value) else value
    if kind is int:
        return value if abs(value) < _MOST_EXACT else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return [encoded(item, depth=depth) for item in value]
    if kind is tuple:
        return {"tuple": [encoded(item, hashed=hashed, depth=depth) for item in value]}
    if kind is set or kind is frozenset:
        return {kind.__name__: [encoded(item, hashed=True, depth=depth) for item in value]}
    if kind is dict:
        return {
            "dict": [
                [encoded(name, hashed=True, depth=depth), encoded(item, depth=depth)]
                for name, item in value.items()
            ]
        }
    if kind is bytes:
        return {"bytes": b64encode(value).decode("ascii")}
    if kind is complex:
        return {"complex": [encoded(value.real), encoded(value.imag)]}
    if kind is Decimal:
        return {"Decimal": str(value)}
    if kind is Fraction:
        return {"Fraction": [encoded(value.numerator), encoded(value.denominator)]}
    if isinstance(value, np.generic) and _NUMPY.get(kind.__name__) is kind:
        return {"numpy": [kind.__name__, encoded(_of_python(value))]}
    fields = _fields(value)
    if fields is None:
        raise NotPlain(f"{quoted(value)} is of the type {type_name(value)}")
    if hashed:
        raise NotPlain(f"{quoted(value)} of the type {type_name(value)} is in a set or is a key")
    if "__type__" in fields:
        raise NotPlain(f"{quoted(value)} has a field that is named __type__")
    return encoded({"__type__": type_name(value), **fields}, depth=depth - 1)


def decoded(data: Any) -> Any:
    """The value that `encoded` gave this for; raises various errors for anything else.

    >>> decoded({"tuple": [1, [None, {"float": "inf"}]]})
    (1, [None, inf])
    """
    kind = type(data)
    if kind is list:
        return [decoded(item) for item in data]
    if kind is not dict:
        return data
    ((tag, content),) = data.items()
    return _DECODERS[tag](content)


def type_name(value: Any) -> str:
    """The name of a value's type, without the function that it was defined in."""
    return type(value).__qualname__.rpartition("<locals>.")[2]


def _of_python(value: Any) -> Any:
    if isinstance(value, bytes | str):  # `item` would drop null characters at their end
        return bytes(value) if isinstance(value, bytes) else str(value)
    return value.item()


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass or a Pydantic object, in their order; None of anything else."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif is_pydantic(kind):
        names = [*kind.model_fields, *(value.model_extra or {})]
    else:
        return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _items(data: Any) -> list[Any]:
    if type(data) is not list:
        raise ValueError("a list is missing")
    return [decoded(item) for item in data]


def _number_of_numpy(content: Any) -> Any:
    name, value = content
    return _NUMPY[name](decoded(value))


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "str": lambda data: "".join(map(chr, data)),
    "int": lambda data: int(data, 16),
    "float": float,
    "tuple": lambda data: tuple(_items(data)),
    "set": lambda data: set(_items(data)),
    "frozenset": lambda data: frozenset(_items(data)),
    "dict": lambda data: {decoded(name): decoded(value) for name, value in data},
    "bytes": lambda data: b64decode(data, validate=True),
    "complex": lambda data: complex(*_items(data)),
    "Decimal": Decimal,
    "Fraction": lambda data: Fraction(*_items(data)),
    "numpy": _number_of_numpy,
}
