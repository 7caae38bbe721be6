"""Numbers of JSON documents and schemas: exact, and with the ways to write them.

Numbers are `int` or `Decimal`, never `float`: 0.1 is a tenth, and 1e400 is a number.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, TypeGuard

__all__ = [
    "DIGITS",
    "Scientific",
    "has_digits",
    "is_integral",
    "is_multiple",
    "is_number",
    "is_plain",
    "read",
    "read_digits",
    "room_for_digits",
    "same",
    "written_out",
]

# Digits of an exponent; a `Decimal` holds 18.
EXPONENT_DIGITS = 6
# A number with more digits on one side of its point is not written out for a mask.
PLAIN_DIGITS = 30
# A keyword of our own, for what a class says of a number: it has no exponent, and at most so many
# digits in all and behind the point. Its value is these two, each a number or null.
DIGITS = "x-awrs-digits"


class Scientific(Decimal):
    """A number that was written with an exponent."""


def read(text: str | bytes) -> Any:
    """A JSON document with exact numbers."""
    return json.loads(text, parse_float=_number)


def read_digits(text: bytes) -> Any:
    """A JSON document, with each number as it would be without its exponent."""
    return json.loads(text, parse_float=_digits)


def _number(text: str) -> Decimal:
    return Scientific(text) if "e" in text.lower() else Decimal(text)


def _digits(text: str) -> int | Decimal:
    digits = text.lower().partition("e")[0]
    return Decimal(digits) if "." in digits else int(digits)


def is_number(value: Any) -> TypeGuard[int | Decimal]:
    """Whether it is a number; `True` and `False` are none."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def is_integral(value: Any) -> bool:
    """Whether it is a number without a fraction, however it is written."""
    return is_number(value) and is_multiple(value, 1)


def is_multiple(value: int | Decimal, step: int | Decimal) -> bool:
    """Whether a number is a whole number of steps. Exact, at no more cost for large exponents."""
    digits, exponent = _parts(value)
    unit, scale = _parts(step)
    shift = exponent - scale
    if shift >= 0:
        return digits * pow(10, shift, unit) % unit == 0
    # Digits that end in fewer zeros than that are no multiple of such a power of ten.
    return digits == 0 or (-shift <= len(str(digits)) and digits % (unit * 10**-shift) == 0)


def _parts(value: int | Decimal) -> tuple[int, int]:
    """A number as digits times a power of ten, without its sign."""
    if isinstance(value, int):
        return abs(value), 0
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    return int("".join(map(str, digits))), exponent


def is_plain(value: Any) -> TypeGuard[int | Decimal]:
    """Whether it is a number that is written out without an exponent, in few digits."""
    if not is_number(value) or isinstance(value, Scientific):
        return False
    digits, exponent = _parts(value)
    return exponent >= -PLAIN_DIGITS and len(str(digits)) + exponent <= PLAIN_DIGITS


def written_out(value: int | Decimal) -> tuple[str, str]:
    """The digits before and after the point, without a sign and without zeros at the end."""
    whole, _, part = f"{Decimal(value):f}".lstrip("-").partition(".")
    return whole.lstrip("0") or "0", part.rstrip("0")


def same(value: Any) -> Any:
    """A hashable that is equal for equal JSON values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool) or value is None:
        return (value,)
    if isinstance(value, dict):
        return frozenset((key, same(item)) for key, item in value.items())
    if isinstance(value, list):
        return ("list", *map(same, value))
    return value


def has_digits(most: list[int | None], value: int | Decimal) -> bool:
    """The keyword `DIGITS`: without an exponent, and no more digits; one 0 before the point."""
    if isinstance(value, Scientific):
        return False
    whole, _, part = f"{Decimal(value):f}".lstrip("-").partition(".")
    size, places = room_for_digits(most)
    digits = len(part) + (len(whole) if whole != "0" else 0)
    return all(
        limit is None or count <= limit
        for count, limit in ((len(whole.lstrip("0")), size), (len(part), places), (digits, most[0]))
    )


def room_for_digits(most: list[int | None]) -> tuple[int | None, int | None]:
    """The most digits before and behind the point, of the two numbers of `DIGITS`."""
    total, places = most
    if total is None:
        return None, places
    return (total, total) if places is None else (max(total - places, 0), min(places, total))
