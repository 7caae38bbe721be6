"""The keywords of a schema, judged by `jsonschema`, with numbers, patterns and formats of our own.

Numbers are exact, patterns are those of ECMA 262, formats those of the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from awrs_ppl.potentials.json.form import is_in_order
from awrs_ppl.potentials.json.formats import formats_of, is_format
from awrs_ppl.potentials.json.limits import search, timed
from awrs_ppl.potentials.json.numbers import (
    DIGITS,
    has_digits,
    is_integral,
    is_multiple,
    is_number,
    is_plain,
    same,
)
from awrs_ppl.potentials.json.unevaluated import unevaluated_items, unevaluated_properties

__all__ = ["draft_number", "full", "in_outline"]

Check = Callable[[Any, Any, Any, Any], Iterable[Any]]

_DRAFTS = {"draft-04": 4, "draft-06": 6, "draft-07": 7, "2019-09": 2019, "2020-12": 2020}


def draft_number(validator: Any) -> int:
    """The number or the year of a validator's draft."""
    name = validator.ID_OF(validator.META_SCHEMA)
    return next(number for part, number in _DRAFTS.items() if part in name)


def full(validator: Any, *, ordered: bool = False) -> Any:
    """The validator of a draft, with all its keywords, and an end to its checks.

    With `ordered` also of the order of keys; what a schema excludes it excludes in any order.
    """
    from jsonschema.validators import extend

    draft = draft_number(validator)
    known = formats_of(draft)

    def has_format(name: str, value: str) -> bool:
        return name not in known or is_format(name, value)

    own: dict[str, Check] = {
        "pattern": _keyword(search, str),
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "format": _keyword(has_format, str),
        "multipleOf": _keyword(lambda step, value: is_multiple(value, step)),
        "enum": _keyword(lambda values, value: same(value) in map(same, values), object),
        "const": _keyword(lambda const, value: same(value) == same(const), object),
        "uniqueItems": _keyword(lambda on, items: not on or _differ(items), list),
        "additionalItems": _additional_items,
        "unevaluatedProperties": unevaluated_properties,
        "unevaluatedItems": unevaluated_items,
        DIGITS: _keyword(has_digits),
    }
    if ordered:
        plain = full(validator)
        own["properties"] = _in_order(validator.VALIDATORS["properties"])
        own["not"], own["if"] = _not(plain), _if(plain)
    known_keywords = {*validator.VALIDATORS, DIGITS}
    keywords = validator.VALIDATORS | {k: v for k, v in own.items() if k in known_keywords}
    types = validator.TYPE_CHECKER
    if draft > 4:
        types = types.redefine("integer", lambda _, value: is_integral(value))
    return extend(validator, {k: timed(v) for k, v in keywords.items()}, type_checker=types)


def in_outline(validator: Any) -> Any:
    """The validator of what an outline says of numbers, and of where they are."""
    from jsonschema.validators import create

    base = full(validator)
    kept = {key: check for key, check in base.VALIDATORS.items() if key in _IN_OUTLINE}
    kept |= {key: _if_plain(check) for key, check in kept.items() if key in _NUMERIC}
    kept["oneOf"] = kept["anyOf"]
    return create(
        meta_schema=base.META_SCHEMA,
        validators=kept,
        type_checker=base.TYPE_CHECKER,
        id_of=base.ID_OF,
        applicable_validators=validator._APPLICABLE_VALIDATORS,
    )


_NUMERIC = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("enum", "const"),
    }
)
_IN_OUTLINE = _NUMERIC | {
    *("$ref", "type", "allOf", "anyOf", "items", "additionalItems", "prefixItems"),
    *("properties", "patternProperties", "additionalProperties"),
}


def _if_plain(check: Check) -> Check:
    """The keyword, where it compares with numbers that an outline writes out."""

    def checked(validator: Any, said: Any, value: Any, schema: Any) -> Iterable[Any]:
        numbers = said if isinstance(said, list) else [said]
        if all(is_plain(number) or not is_number(number) for number in numbers):
            return check(validator, said, value, schema) or ()
        return ()

    return checked


def _keyword(holds: Callable[[Any, Any], bool], kind: type | None = None) -> Check:
    """A keyword about values of a type, by default numbers, from what holds for them."""

    def check(_: Any, said: Any, value: Any, __: Any) -> Iterator[Any]:
        about = is_number(value) if kind is None else isinstance(value, kind)
        if about and not holds(said, value):
            yield _wrong(value)

    return check


def _wrong(value: Any) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(f"{value!r} is not allowed")


def _differ(items: list[Any]) -> bool:
    return len(set(map(same, items))) == len(items)


def _pattern_properties(check: Any, patterns: Any, value: Any, _: Any) -> Iterator[Any]:
    if check.is_type(value, "object"):
        for expression, schema in patterns.items():
            for key, item in value.items():
                if search(expression, key):
                    yield from check.descend(item, schema, path=key, schema_path=expression)


def _additional_properties(check: Any, rest: Any, value: Any, schema: Any) -> Iterator[Any]:
    if check.is_type(value, "object"):
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for key, item in value.items():
            if key not in named and not any(search(p, key) for p in patterns):
                yield from check.descend(item, rest, path=key)


def _in_order(base: Check) -> Check:
    def properties(check: Any, named: Any, value: Any, schema: Any) -> Iterator[Any]:
        if check.is_type(value, "object") and not is_in_order(value, schema):
            yield _wrong(value)
        yield from base(check, named, value, schema) or ()

    return properties


def _not(plain: Any) -> Check:
    def check_not(check: Any, excluded: Any, value: Any, _: Any) -> Iterator[Any]:
        if _holds(plain, check, excluded, value):
            yield _wrong(value)

    return check_not


def _if(plain: Any) -> Check:
    def check_if(check: Any, condition: Any, value: Any, schema: Any) -> Iterator[Any]:
        branch = "then" if _holds(plain, check, condition, value) else "else"
        if branch in schema:
            yield from check.descend(value, schema[branch], schema_path=branch)

    return check_if


def _holds(kind: Any, check: Any, schema: Any, value: Any) -> bool:
    """Whether a schema beside another holds, judged by another kind of validator."""
    beside = kind(schema, registry=check._registry, _resolver=check._resolver)
    return bool(beside.is_valid(value))


def _additional_items(check: Any, rest: Any, value: Any, schema: Any) -> Iterator[Any]:
    first = schema.get("items")
    if check.is_type(value, "array") and isinstance(first, list):
        for item in value[len(first) :]:
            yield from check.descend(item, rest)
