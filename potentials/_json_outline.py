"""A JSON schema in outline: what llguidance can tell of it at every token, and no more.

The outline allows every document that the schema allows, in the spellings that llguidance
knows. It says nothing of what it cannot: the order of keys and which are there, `not`, `if`,
how many alternatives hold, and the like.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any

from awrs_ppl.potentials._json_rules import Rules
from awrs_ppl.potentials._json_text import GAP

__all__ = ["outlines"]

_OPTIONS = {"whitespace_pattern": GAP, "json_allow_general_unicode_escapes": True}
_FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
        "uri",
    }
)
_LARGE = 1e15
_SIZES = ("minLength", "maxLength", "minItems", "maxItems")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def outlines(rules: Rules) -> list[dict[str, Any]]:
    """Outlines for llguidance, the closest first; the last is that of any JSON document."""
    found = [_Outline(rules, patterns=True).whole(), _Outline(rules, patterns=False).whole()]
    return [{**outline, "x-guidance": _OPTIONS} for outline in [*found, {}]]


class _Outline:
    """The outline of one schema; `patterns` says whether regular expressions are kept."""

    def __init__(self, rules: Rules, *, patterns: bool) -> None:
        self.rules = rules
        self.patterns = patterns
        self.names: dict[int, str] = {}
        self.numbers = count()
        self.waiting: list[tuple[str, Any, Any]] = []

    def whole(self) -> dict[str, Any]:
        self.waiting.append(("root", self.rules.schema, self.rules.resolver))
        self.names[id(self.rules.schema)] = "root"
        defined = {}
        while self.waiting:
            name, schema, resolver = self.waiting.pop()
            defined[name] = self.of(schema, resolver)
        return {"$ref": "#/$defs/root", "$defs": defined}

    def of(self, schema: Any, resolver: Any) -> Any:
        if isinstance(schema, bool):
            return schema
        if schema is not self.rules.schema:
            resolver = resolver.in_subresource(self.rules.specification.create_resource(schema))
        parts = []
        if isinstance(schema.get("$ref"), str):
            parts.append(self.reference(schema["$ref"], resolver))
            if self.rules.ref_alone:
                return parts[0]
        parts.append(self.own(schema, resolver))
        parts += [
            {"anyOf": [self.of(sub, resolver) for sub in schema[key]]}
            for key in ("anyOf", "oneOf")
            if key in schema
        ]
        parts += [self.of(sub, resolver) for sub in schema.get("allOf", ())]
        parts = [part for part in parts if part != {}]
        return {"allOf": parts} if len(parts) > 1 else parts[0] if parts else {}

    def reference(self, ref: str, resolver: Any) -> dict[str, str]:
        resolved = resolver.lookup(ref)
        name = self.names.get(id(resolved.contents))
        # Booleans are all the same object.
        if name is None or isinstance(resolved.contents, bool):
            name = f"at{next(self.numbers)}"
            self.names[id(resolved.contents)] = name
            self.waiting.append((name, resolved.contents, resolved.resolver))
        return {"$ref": f"#/$defs/{name}"}

    def own(self, schema: dict[str, Any], resolver: Any) -> dict[str, Any]:
        """What is said of the value itself, not by sub-schemas for the same value."""
        own: dict[str, Any] = {}
        if "type" in schema:
            own["type"] = schema["type"]
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if values and all(map(_is_plain, values)):
            own["enum"] = values
        own |= {key: schema[key] for key in _SIZES if isinstance(schema.get(key), int)}
        own |= {key: schema[key] for key in _BOUNDS if _is_bound(schema.get(key))}
        if self.patterns and "pattern" in schema:
            own["pattern"] = schema["pattern"]
        if schema.get("format") in _FORMATS:
            own["format"] = schema["format"]
        return own | self.items(schema, resolver) | self.members(schema, resolver)

    def items(self, schema: dict[str, Any], resolver: Any) -> dict[str, Any]:
        first, rest = schema.get("prefixItems"), schema.get("items")
        if self.rules.is_legacy:
            first = rest if isinstance(rest, list) else None
            rest = rest if first is None else schema.get("additionalItems")
        found: dict[str, Any] = {}
        if first:
            found["prefixItems"] = [self.of(sub, resolver) for sub in first]
        if rest is not None:
            found["items"] = self.of(rest, resolver)
        return found

    def members(self, schema: dict[str, Any], resolver: Any) -> dict[str, Any]:
        # Names as patterns: llguidance would ask for properties in the order of the schema.
        patterns = schema.get("patternProperties", {})
        found = {
            f"^{re.escape(name)}$": self.of(sub, resolver)
            for name, sub in schema.get("properties", {}).items()
            # Where both count, one of them is enough: llguidance takes no two for one key.
            if not any(self.rules.matches(pattern, name) for pattern in patterns)
        }
        if self.patterns:
            found |= {pattern: self.of(sub, resolver) for pattern, sub in patterns.items()}
        members: dict[str, Any] = {"patternProperties": found} if found else {}
        if "additionalProperties" in schema and (self.patterns or not patterns):
            members["additionalProperties"] = self.of(schema["additionalProperties"], resolver)
        return members


def _is_bound(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGE


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or _is_bound(value)
