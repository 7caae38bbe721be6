"""A JSON schema in outline: what llguidance can check of it at every token, and no more.

The outline is a grammar. It allows every document that the schema allows, in the spellings that
the check allows. It says nothing of what it cannot: the order of keys, `not`, `if`, how many
alternatives hold, and the like.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from awrs_ppl.potentials.json.alternatives import Located, Together, expanded
from awrs_ppl.potentials.json.form import PLAIN
from awrs_ppl.potentials.json.members import in_any_order, in_order, marks, repeated
from awrs_ppl.potentials.json.numbers import DIGITS, is_number, is_plain
from awrs_ppl.potentials.json.numerals import EXPONENT, INTEGER_ALONE, NUMBER, equal, numerals
from awrs_ppl.potentials.json.rules import Rules
from awrs_ppl.potentials.json.strings import ANYTHING, literal, matching, strings

__all__ = ["outlines"]

# Most characters of a grammar. llguidance cannot be interrupted, and compiles a million in about
# half a second.
SIZE = 3_000_000

_TYPES = frozenset({"null", "boolean", "number", "string", "array", "object"})
_NONE = frozenset[str]()


def outlines(rules: Rules) -> Iterator[str]:
    """Grammars for llguidance, the closest first; the last is that of any JSON document."""
    found = None
    for patterns in (True, False):
        try:
            outline = _Outline(rules, patterns=patterns).whole(((rules.schema, rules.resolver),))
        except _TooLarge:
            continue
        if outline != found:
            yield outline
        found = outline
    yield _Outline(rules, patterns=False).whole(())


class _TooLarge(Exception):
    """The grammar would be too long."""


class _Outline:
    """The outline of one schema; `patterns` says whether regular expressions are kept."""

    def __init__(self, rules: Rules, *, patterns: bool) -> None:
        self.rules = rules
        self.patterns = patterns
        # Names of rules by the sub-schemas that they stand for, and of terminals by their texts.
        self.names: dict[frozenset[int], str] = {}
        self.terminals: dict[str, str] = {}
        self.lines: list[str] = []
        self.size = 0
        self.waiting: list[tuple[str, Together]] = []

    def whole(self, schemas: Together) -> str:
        self.lines += [
            "start: GAP? document",
            f"document: {self.value(schemas)}",
            *marks(self.rules.form.gap),
        ]
        while self.waiting:
            name, own = self.waiting.pop()
            kinds = " | ".join(self.kinds(own)) or self.terminal(r"/\x00/")
            self.lines.append(f"{name}: {kinds}")
            self.size += len(self.lines[-1])
            if self.size > SIZE:
                raise _TooLarge
        self.lines += [f"{name}: {text}" for text, name in self.terminals.items()]
        return "\n".join(self.lines)

    def terminal(self, *texts: str) -> str:
        """The name of a terminal: the texts that all the expressions match."""
        text = " & ".join(dict.fromkeys(texts))
        name = self.terminals.get(text)
        if name is None:
            name = self.terminals[text] = f"T{len(self.terminals)}"
            self.size += len(text)
        return name

    # --- values ---------------------------------------------------------------------------

    def value(self, schemas: Together) -> str:
        """What a value is written by for which all the sub-schemas hold; "" if there is none."""
        found = {self.rule(own): None for own in expanded(self.rules, schemas)}
        if len(found) <= 1:
            return "".join(found)
        return f"({' | '.join(found)})"

    def rule(self, own: Together) -> str:
        key = frozenset(id(schema) for schema, _ in own)
        name = self.names.get(key)
        if name is None:
            name = self.names[key] = f"v{len(self.names)}"
            self.waiting.append((name, own))
        return name

    def kinds(self, own: Together) -> Iterator[str]:
        """The ways to write a value of which these keywords are said."""
        schemas = [schema for schema, _ in own]
        types, whole = _TYPES, False
        for schema in schemas:
            named = schema.get("type", list(_TYPES))
            named = {named} if isinstance(named, str) else set(named)
            whole |= "integer" in named and "number" not in named
            types &= named | ({"number"} if "integer" in named else _NONE)
        for schema in schemas:
            values = schema.get("enum", [schema["const"]] if "const" in schema else None)
            if values is not None:
                digits = [DIGITS in schema for schema in schemas]
                yield from self.constants(values, types, plain=any(digits))
                return
        if "null" in types:
            yield '"null"'
        if "boolean" in types:
            yield '"true" | "false"'
        if "number" in types:
            yield self.number(schemas, whole)
        if "string" in types:
            yield self.string(schemas)
        if "array" in types:
            yield from self.array(own)
        if "object" in types:
            yield from self.object(own)

    def constants(
        self, values: list[Any], types: frozenset[str], *, plain: bool = False
    ) -> Iterator[str]:
        """One of the values, as far as they have the types; `plain` is an integer's digits."""
        strings = [literal(value) for value in values if isinstance(value, str)]
        numbers = [value for value in values if is_number(value)]
        if strings and "string" in types:
            yield self.text(rf"\x22(?:{'|'.join(strings)})\x22")
        if numbers and "number" in types and plain:
            yield self.terminal(f"/{equal(numbers)}/", f"/{INTEGER_ALONE}/")
        elif numbers and "number" in types:
            yield self.numeric(equal(numbers) if all(map(is_plain, numbers)) else NUMBER)
        yield from (f'"{name}"' for name, value in _WORDS if any(v is value for v in values))
        for value in values:
            if isinstance(value, list) and "array" in types:
                inner = " COMMA ".join(f"({self.constant(item)})" for item in value)
                yield f"OPEN_ARRAY {inner} CLOSE_ARRAY" if value else "NO_ITEMS"
            elif isinstance(value, dict) and "object" in types:
                members = " | ".join(
                    f"{self.key([name])} COLON ({self.constant(item)})"
                    for name, item in value.items()
                )
                yield in_any_order([members]) if value else "NO_MEMBERS"

    def constant(self, value: Any) -> str:
        return " | ".join(self.constants([value], _TYPES))

    # --- numbers and strings --------------------------------------------------------------

    def number(self, schemas: list[dict[str, Any]], whole: bool) -> str:
        texts = numerals(schemas, whole=whole)
        if whole and self.rules.is_draft4:
            # There a number with a point or an exponent is no integer.
            return self.terminal(*(f"/{text}/" for text in [INTEGER_ALONE, *texts]))
        if any(DIGITS in schema for schema in schemas):
            return self.terminal(*(f"/{text}/" for text in texts))
        return self.numeric(*texts)

    def numeric(self, *texts: str) -> str:
        digits = self.terminal(*(f"/{text}/" for text in texts))
        return self.terminal(f"{digits} /{EXPONENT}/")

    def string(self, schemas: list[dict[str, Any]]) -> str:
        return self.text(*strings(schemas, patterns=self.patterns))

    def text(self, *texts: str) -> str:
        """The name of a terminal: strings, with their quotes."""
        plain = [PLAIN] if self.rules.form.compact else []
        return self.terminal(*(f"/{text}/" for text in [*texts, *plain]))

    # --- arrays ---------------------------------------------------------------------------

    def array(self, own: Together) -> Iterator[str]:
        schemas = [schema for schema, _ in own]
        low = max((int(schema.get("minItems", 0)) for schema in schemas), default=0)
        limits = [int(schema["maxItems"]) for schema in schemas if "maxItems" in schema]
        high = min(limits, default=None)
        if low == 0:
            yield "NO_ITEMS"
        first = [self.first_and_rest(schema)[0] for schema in schemas]
        listed = max(map(len, first), default=0)
        if high is not None:
            listed = min(listed, high)
        items = [self.value(self.item(own, i)) for i in range(listed)]
        rest = self.value(self.item(own, listed)) if high is None or listed < high else ""
        if "" in items:
            items, rest = items[: items.index("")], ""
        tail = repeated(rest, low - len(items) if items else low - 1, high, len(items) or 1)
        for i, item in reversed(list(enumerate(items, 1))):
            if i < len(items):
                name = self.add(f"COMMA {tail}")
                tail = name if i < low else f"{name}?"
            tail = f"{item} {tail}"
        if items or rest:
            yield f"OPEN_ARRAY {tail if items else f'{rest} {tail}'} CLOSE_ARRAY"

    def first_and_rest(self, schema: dict[str, Any]) -> tuple[list[Any], Any]:
        first, rest = schema.get("prefixItems", []), schema.get("items", True)
        if self.rules.is_legacy:
            first = rest if isinstance(rest, list) else []
            rest = schema.get("additionalItems", True) if isinstance(rest, list) else rest
        return first, rest

    def item(self, own: Together, index: int) -> Together:
        found = []
        for schema, resolver in own:
            first, rest = self.first_and_rest(schema)
            found.append((first[index] if index < len(first) else rest, resolver))
        return tuple(found)

    # --- objects --------------------------------------------------------------------------

    def key(self, names: list[str]) -> str:
        return self.text(rf"\x22(?:{'|'.join(map(literal, names))})\x22")

    def object(self, own: Together) -> Iterator[str]:
        if not any(schema.get("required") or schema.get("minProperties") for schema, _ in own):
            yield "NO_MEMBERS"
        if any(schema.get("maxProperties") == 0 for schema, _ in own):
            return
        names = list(dict.fromkeys(n for schema, _ in own for n in schema.get("properties", ())))
        speaking = [schema for schema, _ in own if schema.get("properties")]
        if self.rules.form.ordered and len(speaking) == 1:
            if text := self.ordered(own, names, are_last="additionalProperties" in speaking[0]):
                yield text
            return
        by_value: dict[str, list[str]] = {}
        for name in names:
            if value := self.value(self.member(own, name)):
                by_value.setdefault(value, []).append(name)
        members = [f"{self.key(group)} COLON {value}" for value, group in by_value.items()]
        members += self.others(own, names)
        if members:
            yield in_any_order(members)

    def ordered(self, own: Together, names: list[str], *, are_last: bool) -> str:
        """Members in the order of their names; "" if an object cannot have them."""
        required = {name for schema, _ in own for name in schema.get("required", ())}
        named = []
        for name in names:
            if value := self.value(self.member(own, name)):
                named.append((f"{self.key([name])} COLON {value}", name in required))
            elif name in required:
                return ""
        others = list(self.others(own, names))
        return in_order(named, others, are_last=are_last, add=self.add)

    def add(self, text: str) -> str:
        name = f"part{len(self.lines)}"
        self.lines.append(f"{name}: {text}")
        self.size += len(text)
        return name

    def member(self, own: Together, name: str) -> Together:
        """What holds for the value of a key with a name."""
        found: list[Located] = []
        for schema, resolver in own:
            patterns = schema.get("patternProperties", {})
            subs = [sub for p, sub in patterns.items() if self.rules.matches(p, name)]
            if name in schema.get("properties", ()):
                subs.append(schema["properties"][name])
            found += [(sub, resolver) for sub in subs or [schema.get("additionalProperties", True)]]
        return tuple(found)

    def others(self, own: Together, names: list[str]) -> Iterator[str]:
        """The members whose keys are none of the names."""
        without = [f"~{self.key(names)}"] if names else []
        anything = self.text(ANYTHING)
        patterns = [(p, i) for i, (s, _) in enumerate(own) for p in s.get("patternProperties", ())]
        for pattern, i in patterns:
            # What patterns of other schemas say of the same key is left to the check.
            subs = [(own[i][0]["patternProperties"][pattern], own[i][1])]
            subs += [
                (schema.get("additionalProperties", True), resolver)
                for schema, resolver in own
                if not schema.get("patternProperties")
            ]
            if value := self.value(tuple(subs)):
                text = self.text(matching(pattern) or ANYTHING) if self.patterns else anything
                yield f"{self.terminal(text, *without)} COLON {value}"
        rest = [(schema.get("additionalProperties", True), resolver) for schema, resolver in own]
        if value := self.value(tuple(rest)):
            exact = [matching(p, exact=True) for p, _ in patterns if self.patterns]
            without += [f"~{self.terminal(f'/{text}/')}" for text in exact if text]
            yield f"{self.terminal(anything, *without)} COLON {value}"


_WORDS = (("null", None), ("true", True), ("false", False))
