"""What `unevaluatedProperties` and `unevaluatedItems` apply to: the rest, after all others.

`check` is always a validator of `jsonschema` at the schema that is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from awrs_ppl.potentials.json.limits import search

__all__ = ["unevaluated_items", "unevaluated_properties"]


def unevaluated_properties(check: Any, rest: Any, value: Any, schema: Any) -> Iterator[Any]:
    """The keyword for `jsonschema`."""
    if check.is_type(value, "object"):
        known = _keys(check, value, schema)
        for key, item in value.items():
            if key not in known:
                yield from check.descend(item, rest, path=key)


def unevaluated_items(check: Any, rest: Any, value: Any, schema: Any) -> Iterator[Any]:
    """The keyword for `jsonschema`."""
    if check.is_type(value, "array"):
        known = _indices(check, value, schema)
        for i, item in enumerate(value):
            if i not in known:
                yield from check.descend(item, rest, path=i)


def _keys(check: Any, value: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """The keys that a schema, which holds, has looked at, without its own rest."""
    patterns = schema.get("patternProperties", ())
    found = value.keys() & schema.get("properties", {}).keys()
    found |= {key for key in value if any(search(pattern, key) for pattern in patterns)}
    if "additionalProperties" in schema:
        found |= value.keys()
    for inner in _that_hold(check, value, schema):
        if "unevaluatedProperties" in inner.schema:
            return set(value)
        found |= _keys(inner, value, inner.schema)
    return found


def _indices(check: Any, value: list[Any], schema: dict[str, Any]) -> set[int]:
    """The indices of the items that a schema, which holds, has looked at."""
    every = set(range(len(value)))
    first = schema.get("prefixItems", schema.get("items", []))
    rest = "additionalItems"
    if "prefixItems" in check.VALIDATORS:
        first, rest = schema.get("prefixItems", []), "items"
    if not isinstance(first, list) or (rest in schema and (rest == "items" or "items" in schema)):
        return every
    found = set(range(min(len(first), len(value))))
    if "contains" in schema and rest == "items":
        contained = _at(check, schema["contains"])
        found |= {i for i, item in enumerate(value) if contained.is_valid(item)}
    for inner in _that_hold(check, value, schema):
        if "unevaluatedItems" in inner.schema:
            return every
        found |= _indices(inner, value, inner.schema)
    return found


def _that_hold(check: Any, value: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas for the same value that hold, as validators."""
    for inner in _beside(check, value, schema):
        if isinstance(inner.schema, dict) and inner.is_valid(value):
            yield inner


def _beside(check: Any, value: Any, schema: dict[str, Any]) -> Iterator[Any]:
    from referencing.jsonschema import lookup_recursive_ref

    resolver = check._resolver
    for key in ("$ref", "$dynamicRef", "$recursiveRef"):
        if key in schema and key in check.VALIDATORS:
            recursive = key == "$recursiveRef"
            found = lookup_recursive_ref(resolver) if recursive else resolver.lookup(schema[key])
            yield check.evolve(schema=found.contents, _resolver=found.resolver)
    for key in ("allOf", "anyOf", "oneOf"):
        yield from (_at(check, sub) for sub in schema.get(key, ()))
    if "if" in schema:
        condition = _at(check, schema["if"])
        yield condition
        branch = "then" if condition.is_valid(value) else "else"
        if branch in schema:
            yield _at(check, schema[branch])
    if isinstance(value, dict):
        dependent = schema.get("dependentSchemas", {})
        yield from (_at(check, sub) for key, sub in dependent.items() if key in value)


def _at(check: Any, schema: Any) -> Any:
    from referencing.jsonschema import specification_with

    specification = specification_with(check.ID_OF(check.META_SCHEMA))
    resolver = check._resolver.in_subresource(specification.create_resource(schema))
    return check.evolve(schema=schema, _resolver=resolver)
