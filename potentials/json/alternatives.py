"""The alternatives of a value: which sub-schemas speak of it together."""

from __future__ import annotations

from itertools import product
from typing import Any

from awrs_ppl.potentials.json.rules import Rules

__all__ = ["Located", "Together", "expanded"]

# Most combinations of alternatives of one value; others are left to the check.
COMBINATIONS = 64

# A sub-schema, and where references in it lead; and sub-schemas that hold for one value.
Located = tuple[Any, Any]
Together = tuple[Located, ...]

# By the identities of schemas, which hold together.
_Alternative = dict[int, Located]

# These say nothing of a value by themselves.
_SILENT = frozenset(
    {
        *("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$defs", "definitions"),
        *("title", "description", "default", "examples", "$id", "id", "$schema", "$comment"),
    }
)


def expanded(rules: Rules, schemas: Together) -> list[Together]:
    """The alternatives in which sub-schemas hold, each as those whose own keywords then count.

    By `$ref`, `allOf`, `anyOf` and `oneOf`; there is none where no value can be.
    """
    found: list[_Alternative] = [{}]
    for schema, resolver in schemas:
        found = _joined(found, _alternatives(rules, schema, resolver))
    return [tuple(own.values()) for own in found]


def _alternatives(rules: Rules, schema: Any, resolver: Any) -> list[_Alternative]:
    if isinstance(schema, bool):
        return [{}] if schema else []
    if schema is not rules.schema:
        resolver = resolver.in_subresource(rules.specification.create_resource(schema))
    found: list[_Alternative] = [{}]
    if isinstance(schema.get("$ref"), str):
        resolved = resolver.lookup(schema["$ref"])
        found = _alternatives(rules, resolved.contents, resolved.resolver)
        if rules.ref_alone:
            return found
    if not schema.keys() <= _SILENT:
        found = _joined(found, [{id(schema): (schema, resolver)}])
    for sub in schema.get("allOf", ()):
        found = _joined(found, _alternatives(rules, sub, resolver))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            options = [o for sub in schema[key] for o in _alternatives(rules, sub, resolver)]
            found = _joined(found, options)
    return found


def _joined(
    found: list[dict[int, Located]], options: list[dict[int, Located]]
) -> list[dict[int, Located]]:
    """Each alternative with each option; without the options if that would be too many."""
    if min(len(found), len(options)) > 1 and len(found) * len(options) > COMBINATIONS:
        return found
    return [{**one, **other} for one, other in product(found, options)]
