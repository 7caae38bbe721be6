"""Whether a JSON schema can be used, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import regex

from awrs_ppl.potentials.json.backreferences import check_backreferences
from awrs_ppl.potentials.json.limits import compiled, unrolled
from awrs_ppl.potentials.json.numbers import read
from awrs_ppl.potentials.json.patterns import parse as parse_pattern

__all__ = ["Inspection", "draft_of", "parse", "required_members", "separate"]

# Schemas nested deeper, or longer as JSON, are rejected.
SCHEMA_DEPTH = 64
SCHEMA_SIZE = 1_000_000
# So many rules may apply to one value, and so long may a pattern be unrolled.
RULES_AT_ONCE = 10_000
PATTERN_SIZE = 100_000

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def parse(text: str, name: str) -> Any:
    """The schema, if it is neither too long nor nested too deep."""
    if len(text) > SCHEMA_SIZE:
        raise ValueError(f"{name}: the schema has more than {SCHEMA_SIZE} characters")
    depth = deepest = 0
    for mark in regex.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        depth += (mark in "[{") - (mark in "]}")
        deepest = max(deepest, depth)
    if deepest > SCHEMA_DEPTH:
        raise ValueError(f"{name}: the schema is nested more than {SCHEMA_DEPTH} levels deep")
    return read(text)


def draft_of(text: str, name: str) -> tuple[Any, Any]:
    """The validator of a schema's draft, and how references are read in it."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft3Validator, Draft202012Validator, validator_for
    from referencing.jsonschema import specification_with

    schema = json.loads(text)
    validator: Any = validator_for(schema, default=Draft202012Validator)
    if validator is Draft3Validator:
        raise ValueError(f"{name}: Draft 3 is not supported, Draft 4 and later are")
    try:
        # Without formats: patterns are compiled below, and by another package.
        validator.check_schema(schema, format_checker=None)
    except SchemaError as error:
        raise ValueError(
            f"{name} is no JSON schema: at {error.json_path}, {error.message}"
        ) from error
    except RecursionError as error:
        raise ValueError(f"{name}: the schema is nested too deep") from error
    return validator, specification_with(validator.ID_OF(validator.META_SCHEMA))


def separate(schema: dict[str, Any], *, is_old: bool) -> None:
    """Gives both forms of `dependencies` the same form: no library reads them mixed.

    The drafts since 2019, which are not old, write it otherwise, and take this beside it.
    """
    dependencies = schema.get("dependencies")
    if not isinstance(dependencies, dict):
        return
    for key, value in dependencies.items():
        if isinstance(value, list):
            dependencies[key] = {"required": value} if value else {}
    if not is_old:
        beside = schema.setdefault("allOf", [])
        if not any(
            isinstance(sub, dict) and sub.get("dependentSchemas") is dependencies for sub in beside
        ):
            beside.append({"dependentSchemas": dependencies})


class Inspection:
    """Rejects schemas that point outside, go round in circles, or cost too much.

    Afterwards `is_plain` says whether all references are relative to the whole schema.
    """

    def __init__(self, schema: Any, specification: Any, name: str, *, is_old: bool) -> None:
        self.schema = schema
        self.specification = specification
        self.is_old = is_old
        self.name = name
        self.is_plain = True
        self.same_value: dict[int, list[int]] = {}

    def run(self, resolver: Any) -> None:
        """Raises `ValueError`. Takes `$schema` out of the schema, wherever it stands."""
        waiting = [(self.schema, resolver)]
        while waiting:
            schema, resolver = waiting.pop()
            if isinstance(schema, dict) and id(schema) not in self.same_value:
                waiting += self.visit(schema, resolver)
        costs: dict[int, int] = {}
        for node in self.same_value:
            self.cost(node, costs)

    def visit(self, schema: dict[str, Any], resolver: Any) -> list[tuple[Any, Any]]:
        # `jsonschema` would judge what names a draft by a validator of its own, without limits.
        if isinstance(schema.get("$schema"), str):
            del schema["$schema"]
        separate(schema, is_old=self.is_old)
        resource = self.specification.create_resource(schema)
        if schema is not self.schema:
            self.is_plain &= resource.id() is None
            resolver = resolver.in_subresource(resource)
        for pattern in [schema.get("pattern"), *schema.get("patternProperties", ())]:
            if isinstance(pattern, str):
                self.compile(pattern)
        beside = list(_same_value(schema))
        found = [(sub.contents, resolver) for sub in resource.subresources()]
        for key in _REFERENCES:
            if isinstance(schema.get(key), str):
                self.is_plain &= key == "$ref"
                contents, base = self.lookup(schema[key], resolver)
                beside.append(contents)
                found.append((contents, base))
        self.same_value[id(schema)] = [id(sub) for sub in beside if isinstance(sub, dict)]
        return found

    def lookup(self, ref: str, resolver: Any) -> tuple[Any, Any]:
        from referencing.exceptions import Unresolvable

        try:
            resolved = resolver.lookup(ref)
        except (Unresolvable, AttributeError, TypeError) as error:
            # The last two: `referencing` stumbles over some properties that are called "id".
            raise ValueError(
                f"{self.name} refers to {ref!r}, which is not in the schema: references "
                "are local and nothing is fetched, so put it under $defs"
            ) from error
        if not isinstance(resolved.contents, dict | bool):
            raise ValueError(f"{self.name} refers to {ref!r}, which is no schema")
        return resolved.contents, resolved.resolver

    def compile(self, pattern: str) -> None:
        try:
            if unrolled(pattern) > PATTERN_SIZE:
                raise ValueError(f"it repeats more than {PATTERN_SIZE} characters")
            compiled(pattern)
            check_backreferences(parse_pattern(pattern))
        except (regex.error, ValueError, OverflowError, RecursionError, KeyError) as error:
            raise ValueError(
                f"{self.name}: the pattern {pattern!r} cannot be used: {error}"
            ) from error

    def cost(self, node: int, costs: dict[int, int]) -> int:
        """How many rules are evaluated on one value; 0 while they are being counted."""
        if node not in costs:
            costs[node] = 0
            try:
                total = 1 + sum(self.cost(sub, costs) for sub in self.same_value.get(node, ()))
            except RecursionError as error:
                raise ValueError(f"{self.name}: a chain of references is too long") from error
            if total > RULES_AT_ONCE:
                raise ValueError(
                    f"{self.name}: more than {RULES_AT_ONCE} rules apply to one value: "
                    "write it with fewer references to the same schemas"
                )
            costs[node] = total
        if not costs[node]:
            raise ValueError(
                f"{self.name}: a reference leads back to itself without going into the "
                "document, so it says nothing"
            )
        return costs[node]


def _same_value(schema: dict[str, Any]) -> Iterator[Any]:
    """The sub-schemas that apply to the same value."""
    for key in ("allOf", "anyOf", "oneOf"):
        yield from schema.get(key, ())
    for key in ("not", "if", "then", "else"):
        if key in schema:
            yield schema[key]
    for key in ("dependentSchemas", "dependencies"):
        if isinstance(schema.get(key), dict):
            yield from schema[key].values()


def _is_text(name: Any) -> bool:
    # JSON can escape half of a surrogate pair, which no text has.
    return isinstance(name, str) and not any(0xD800 <= ord(c) <= 0xDFFF for c in name)


@lru_cache(maxsize=64)
def required_members(text: str) -> tuple[bytes, ...]:
    """How members begin that a schema requires anywhere: their names in JSON, with the colon."""
    names: dict[str, None] = {}
    parts = [json.loads(text)]
    while parts:
        part = parts.pop(0)
        if isinstance(part, dict):
            required = part.get("required")
            required = required if isinstance(required, list) else ()
            names.update(dict.fromkeys(name for name in required if _is_text(name)))
        parts += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return tuple(f"{json.dumps(name, ensure_ascii=False)}:".encode() for name in names)
