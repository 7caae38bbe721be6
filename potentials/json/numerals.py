"""Regular expressions of llguidance for the numbers of JSON documents, up to their exponents.

They say what the mask allows: every number that the check allows, and perhaps more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from awrs_ppl.potentials.json.numbers import (
    DIGITS,
    EXPONENT_DIGITS,
    PLAIN_DIGITS,
    is_multiple,
    is_plain,
    room_for_digits,
    written_out,
)

__all__ = ["EXPONENT", "INTEGER_ALONE", "NUMBER", "digits", "equal", "numerals"]

# Most multiples of a step between two integers that a mask lists.
STEPS = 200

_WHOLE = "(?:0|[1-9][0-9]*)"
_PLAIN = rf"{_WHOLE}(?:\.[0-9]+)?"
# All of these are what stands before an exponent.
NUMBER = f"-?{_PLAIN}"
INTEGER = rf"-?{_WHOLE}(?:\.0+)?"
INTEGER_ALONE = f"-?{_WHOLE}"
EXPONENT = f"(?:[eE][+-]?[0-9]{{1,{EXPONENT_DIGITS}}})?"


def _above(bound: int | Decimal, *, strict: bool, sign: str) -> str:
    """Numbers of at least a bound, or above it; with `sign="-"` at most, or below."""
    other = "" if sign else "-"
    bound = -bound if sign else bound
    if bound > 0 or (bound == 0 and strict):
        return "|".join(f"{sign}{text}" for text in _at_least(written_out(bound), strict))
    inner = "|".join(f"{other}{text}" for text in _at_most(written_out(bound), strict))
    return f"{sign}{_PLAIN}|{inner}"


def _at_least(bound: tuple[str, str], strict: bool) -> Iterator[str]:
    """Texts of numbers by a bound, given by its digits before and after the point."""
    whole, part = bound
    size = len(whole)
    yield rf"[1-9][0-9]{{{size},}}(?:\.[0-9]+)?"
    for i, digit in enumerate(whole):
        if digit < "9":
            first = max(int(digit) + 1, 1 if i == 0 else 0)
            yield rf"{whole[:i]}[{first}-9][0-9]{{{size - i - 1}}}(?:\.[0-9]+)?"
    for i, digit in enumerate(part):
        if digit < "9":
            yield rf"{whole}\.{part[:i]}[{int(digit) + 1}-9][0-9]*"
    if strict:
        yield rf"{whole}\.{part}[0-9]*[1-9][0-9]*"
    else:
        yield rf"{whole}\.{part}[0-9]*" if part else rf"{whole}(?:\.[0-9]+)?"


def _at_most(bound: tuple[str, str], strict: bool) -> Iterator[str]:
    whole, part = bound
    size = len(whole)
    if size > 1:
        yield rf"(?:0|[1-9][0-9]{{0,{size - 2}}})(?:\.[0-9]+)?"
    for i, digit in enumerate(whole):
        lowest = 1 if i == 0 and size > 1 else 0
        if int(digit) > lowest:
            yield rf"{whole[:i]}[{lowest}-{int(digit) - 1}][0-9]{{{size - i - 1}}}(?:\.[0-9]+)?"
    if part:
        yield whole
        yield from (rf"{whole}\.{part[:i]}" for i in range(1, len(part)))
    for i, digit in enumerate(part):
        if digit > "0":
            yield rf"{whole}\.{part[:i]}[0-{int(digit) - 1}][0-9]*"
    if not strict:
        yield rf"{whole}\.{part}0*" if part else rf"{whole}(?:\.0+)?"


def _with_decimals(step: int | Decimal) -> str:
    """Numbers that may be multiples of a step with decimals."""
    turns = 1 / Fraction(step)
    if turns.denominator != 1 or turns > STEPS:
        return rf"-?{_WHOLE}(?:\.[0-9]{{1,{len(written_out(step)[1])}}}0*)?"
    parts = sorted({written_out(step * i)[1] for i in range(1, int(turns))})
    return rf"-?{_WHOLE}(?:\.(?:{'|'.join(['0', *parts])})0*)?"


def equal(values: Iterable[int | Decimal]) -> str:
    """Numbers, in all spellings."""
    options = []
    for value in values:
        whole, part = written_out(value)
        sign = "-?" if value == 0 else "-" if value < 0 else ""
        options.append(rf"{sign}{whole}" + (rf"\.{part}0*" if part else r"(?:\.0+)?"))
    return "|".join(options)


def digits(most: list[int | None]) -> str:
    """Numbers of at most so many digits, as the keyword `DIGITS` says."""
    size, places = room_for_digits(most)
    if most[0] is not None and most[1] is None and most[0] <= PLAIN_DIGITS:
        # The more before the point, the fewer behind it.
        return "|".join(_sized(whole, most[0] - whole) for whole in range(most[0] + 1))
    return _sized(size, places)


def _sized(size: int | None, places: int | None) -> str:
    whole = _WHOLE if size is None else rf"(?:0|[1-9][0-9]{{0,{size - 1}}})" if size else "0"
    limit = "" if places is None else places
    return rf"-?{whole}" + ("" if places == 0 else rf"(?:\.[0-9]{{1,{limit}}})?")


def numerals(schemas: list[dict[str, Any]], *, whole: bool) -> list[str]:
    """Expressions that all match where the keywords of the schemas hold."""
    found = [INTEGER if whole else NUMBER]
    for schema in schemas:
        for key, other, sign in (
            ("minimum", "exclusiveMinimum", ""),
            ("maximum", "exclusiveMaximum", "-"),
        ):
            # In Draft 4 the second is a boolean about the first.
            bounds = ((schema.get(key), schema.get(other) is True), (schema.get(other), True))
            found += [_above(b, strict=s, sign=sign) for b, s in bounds if is_plain(b)]
        step = schema.get("multipleOf")
        if not whole and is_plain(step) and not is_multiple(step, 1):
            found.append(_with_decimals(step))
        if DIGITS in schema:
            found.append(digits(schema[DIGITS]))
    return found
