"""Random schemas and documents, prefix by prefix, against `jsonschema` with fractions."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema._utils import equal
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from awrs_ppl.potentials import JsonSchema


def parts(potential: JsonSchema) -> list[Any]:
    return [factor.potential for factor in potential.target.boolean]  # pyright: ignore


def rejected_at(potential: JsonSchema, text: str) -> int | None:
    """How many bytes were read when the text was rejected; None if it is allowed."""
    states = [(part, part.start()) for part in parts(potential)]
    for at, byte in enumerate(text.encode(), 1):
        states = [(part, part.advance(state, bytes([byte]))) for part, state in states]
        if any(state is None for _, state in states):
            return at
    return None if all(part.accepts(state) for part, state in states) else len(text.encode())


# --- numbers --------------------------------------------------------------------------------------

DRAFTS = {
    "http://json-schema.org/draft-04/schema#": True,
    "http://json-schema.org/draft-07/schema#": False,
    "https://json-schema.org/draft/2020-12/schema": False,
}
# None that Python writes with an exponent: such a value does not bind the digits before one.
NUMERALS = ["0", "1", "2", "3", "5", "7", "10", "12", "99", "100", "0.1", "0.01", "0.5", "0.25"]
NUMERALS += ["1.5", "2.05", "0.3", "3.999", "123456789012345678901", "1000000", "0.0001"]


def numeral(rng: random.Random) -> str:
    sign = rng.choice(["", "", "-"])
    if rng.random() < 0.4:
        return sign + rng.choice(NUMERALS)
    whole = str(rng.randint(0, 10 ** rng.randint(0, 3)))
    decimals = "".join(rng.choices("0123456789", k=rng.randint(1, 4)))
    return sign + whole + (f".{decimals}" if rng.random() < 0.6 else "")


def bounded(rng: random.Random, *, old: bool) -> tuple[dict[str, str], Any]:
    """A schema about numbers, its values as numerals, and a judge of numbers by it."""
    schema: dict[str, str] = {}
    tests = []
    if rng.random() < 0.4:
        schema["type"] = '"integer"'
    for key, sign in (("minimum", 1), ("maximum", -1)):
        if rng.random() < 0.5:
            bound = numeral(rng)
            strict = rng.random() < 0.4
            exclusive = f"exclusive{key.capitalize()}"
            if old or not strict:
                schema[key] = bound
                schema |= {exclusive: "true"} if strict else {}
            else:
                schema[exclusive] = bound
            tests.append(
                lambda x, b=Fraction(bound), s=sign, strict=strict: (
                    (x - b) * s > 0 or (x == b and not strict)
                )
            )
    if rng.random() < 0.4:
        step = numeral(rng).lstrip("-")
        if Fraction(step):
            schema["multipleOf"] = step
            tests.append(lambda x, s=Fraction(step): (x / s).denominator == 1)
    if rng.random() < 0.2:
        # Draft 4 wants them to differ.
        values = list({Fraction(text): text for text in [numeral(rng) for _ in range(3)]}.values())
        schema["enum"] = f"[{', '.join(values)}]"
        known = [Fraction(value) for value in values]
        tests.append(lambda x: x in known)
    return schema, lambda x: all(test(x) for test in tests)


def near(schema: dict[str, str], rng: random.Random) -> str:
    """A numeral, often one at which the schema decides."""
    known = [
        v.strip("[]").split(", ")[0] for k, v in schema.items() if v not in ('"integer"', "true")
    ]
    text = rng.choice([*known, numeral(rng)])
    if rng.random() < 0.3:
        text += ("" if "." in text else ".") + rng.choice(["0", "00", "01", "1"])
    if rng.random() < 0.2:
        text += rng.choice(["e0", "E+2", "e-1", "e3", "e400", "e-20", "E-00"])
    return text


def test_random_numbers_get_the_verdicts_of_fractions(fuzz: Any):
    verdicts = {True: 0, False: 0}
    for rng in fuzz.rngs(120):
        name, old = rng.choice(list(DRAFTS.items()))
        schema, holds = bounded(rng, old=old)
        body = ", ".join(
            f'"{key}": {value}' for key, value in {**schema, "$schema": f'"{name}"'}.items()
        )
        # Numbers of a schema are those that Python's json reads and writes.
        read = json.loads(f"{{{body}}}")
        for engine in ("auto", "check"):
            potential = JsonSchema(read, engine=engine)
            for _ in range(12):
                text = near(schema, rng)
                digits = text.lower().partition("e")[0]
                wanted = holds(Fraction(text)) and holds(Fraction(digits))
                if "type" in schema:
                    whole = all(Fraction(t).denominator == 1 for t in (text, digits))
                    wanted &= not {".", "e"} & set(text.lower()) if old else whole
                at = rejected_at(potential, text)
                assert (at is None) == wanted, (read, text, engine)
                verdicts[wanted] += 1
    assert min(verdicts.values()) > 300


# --- schemas of all kinds -------------------------------------------------------------------------

NAMES = ["a", "b", "ab", "b-1", "é", "x y", "$ref", ""]
PATTERNS = ["^a", "b$", "^[a-z]{1,2}$", r"\d", "^$", "(?=.*b)a", "^(a|b)+$"]
TEXTS = ["", "a", "b", "ab", "ba", "é", "😀b", 'q"\\', "a/b", "12", "2024-02-29", "2023-02-29"]
TEXTS += ["1.2.3.4", "1.2.3.400", "x" * 9, "98d80576-482e-427f-8434-7f86890ab222"]
VALUES: list[Any] = [None, True, False, 0, 1, -1, 2, 7, 0.5, 1.0, 2.25, 100]


def schema_of(rng: random.Random, depth: int) -> Any:
    def sub() -> Any:
        return schema_of(rng, depth - 1)

    def several(k: int) -> list[Any]:
        return [sub() for _ in range(rng.randint(1, k))]

    def named(names: list[str], k: int) -> dict[str, Any]:
        return {name: sub() for name in rng.sample(names, rng.randint(1, k))}

    simple: dict[str, Any] = {
        "type": lambda: rng.choice(
            [
                "string",
                "integer",
                "number",
                "object",
                "array",
                ["null", "integer"],
                ["string", "array"],
            ]
        ),
        "enum": lambda: rng.sample([*VALUES, *TEXTS, [1], {"a": 1}, [True]], 4),
        "const": lambda: rng.choice([*VALUES, *TEXTS, {"a": [1.0]}]),
        "minLength": lambda: rng.randint(0, 2),
        "maxLength": lambda: rng.randint(0, 3),
        "pattern": lambda: rng.choice(PATTERNS),
        "format": lambda: rng.choice(["date", "ipv4", "uuid"]),
        "minimum": lambda: rng.choice([0, 1, -0.5, 0.25]),
        "maximum": lambda: rng.choice([1, 2, 7.5]),
        "exclusiveMinimum": lambda: rng.choice([0, 1]),
        "multipleOf": lambda: rng.choice([1, 0.5, 0.1, 2]),
        "required": lambda: rng.sample(NAMES, rng.randint(0, 2)),
        "minProperties": lambda: rng.randint(0, 2),
        "maxProperties": lambda: rng.randint(0, 2),
        "minItems": lambda: rng.randint(0, 2),
        "maxItems": lambda: rng.randint(0, 3),
        "uniqueItems": lambda: True,
        "dependentRequired": lambda: {"a": ["b"]},
        "$ref": lambda: "#/$defs/d",
    }
    nested: dict[str, Any] = {
        "properties": lambda: named(NAMES, 3),
        "patternProperties": lambda: named(PATTERNS, 2),
        "additionalProperties": lambda: rng.choice([False, sub()]),
        "propertyNames": sub,
        "items": sub,
        "prefixItems": lambda: several(3),
        "contains": sub,
        "allOf": lambda: several(2),
        "anyOf": lambda: several(3),
        "oneOf": lambda: several(2),
        "not": sub,
        "if": sub,
        "then": sub,
        "else": sub,
        "dependentSchemas": lambda: named(NAMES, 1),
    }
    if rng.random() < 0.1:
        return rng.random() < 0.6
    kinds = simple if depth == 0 else simple | nested
    keys = rng.sample(list(kinds), rng.randint(0, 3))
    if depth > 0:
        keys += rng.sample(list(nested), rng.randint(1, 2))
    return {key: kinds[key]() for key in dict.fromkeys(keys)}


def document(schema: Any, rng: random.Random, depth: int = 3) -> Any:
    """A document that tries to be valid."""
    if not isinstance(schema, dict) or depth == 0 or rng.random() < 0.1:
        return rng.choice([*VALUES, *TEXTS, [], {}, [1, 1.0], {"a": 1}])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in schema and rng.random() < 0.3:
            return document(rng.choice(schema[key]), rng, depth)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    objects = {"properties", "patternProperties", "required", "dependentSchemas", "minProperties"}
    if objects & schema.keys() or schema.get("type") == "object":
        names = {*schema.get("required", ()), *rng.sample(NAMES, rng.randint(0, 2))}
        inner = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        return {name: document(inner.get(name, rest), rng, depth - 1) for name in names}
    if {"items", "prefixItems", "contains", "minItems"} & schema.keys():
        first = schema.get("prefixItems", [])
        subs = [*first, *[schema.get("items", schema.get("contains", True))] * 2]
        return [document(sub, rng, depth - 1) for sub in subs[: rng.randint(0, len(subs))]]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    pools: dict[Any, list[Any]] = {"string": TEXTS, "null": [None], "array": [[], [1]]}
    return rng.choice(pools.get(kind, [*VALUES, *TEXTS] if kind is None else VALUES))


def spelled(value: Any, rng: random.Random) -> str:
    """One of the ways to write a document."""
    gap = rng.choice(["", "", " ", "\n  ", "\t"])
    if isinstance(value, dict):
        items = rng.sample(list(value.items()), len(value))
        inner = f",{gap}".join(f"{spelled(k, rng)}:{gap}{spelled(v, rng)}" for k, v in items)
        return f"{{{gap}{inner}{gap if inner else ''}}}"
    if isinstance(value, list):
        inner = f"{gap},".join(spelled(item, rng) for item in value)
        return f"[{gap}{inner}{gap if inner else ''}]"
    if isinstance(value, str):
        return f'"{"".join(character(c, rng) for c in value)}"'
    text = json.dumps(value)
    if isinstance(value, int) and not isinstance(value, bool):
        text += rng.choice(["", "", "", ".0", "e0"])
    return text


def character(c: str, rng: random.Random) -> str:
    plain = json.dumps(c, ensure_ascii=False)[1:-1]
    if c == "/" and rng.random() < 0.5:
        return r"\/"
    units = c.encode("utf-16-be").hex()
    escaped = "".join(rf"\u{units[i : i + 4]}" for i in range(0, len(units), 4))
    return rng.choice([plain] * 8 + [escaped, escaped.upper().replace("U", "u")])


def unique(_: Any, on: Any, value: Any, __: Any) -> Any:
    if on and isinstance(value, list) and any(equal(a, b) for a, b in combinations(value, 2)):
        yield ValidationError("twice")


Judge = extend(
    Draft202012Validator,
    {"uniqueItems": unique},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer",
        lambda _, value: (
            not isinstance(value, bool)
            and isinstance(value, int | Fraction)
            and Fraction(value).denominator == 1
        ),
    ),
)


def exact(value: Any) -> Any:
    return json.loads(json.dumps(value), parse_float=Fraction)


@pytest.mark.slow
def test_random_documents_get_the_verdicts_of_jsonschema_at_every_prefix(fuzz: Any):
    verdicts = {True: 0, False: 0}
    for rng in fuzz.rngs(100):
        schema = schema_of(rng, 3)
        if isinstance(schema, dict):
            target = json.dumps(schema_of(rng, 1)).replace('"$ref": "#/$defs/d"', '"title": ""')
            schema["$defs"] = {"d": json.loads(target)}
        judge = Judge(exact(schema), format_checker=Judge.FORMAT_CHECKER)
        masked, checked = JsonSchema(schema), JsonSchema(schema, engine="check")
        for _ in range(8):
            value = document(schema, rng)
            text = spelled(value, rng)
            wanted = judge.is_valid(exact(value))
            for potential in (masked, checked):
                at = rejected_at(potential, text)
                assert (at is None) == wanted, (schema, text, potential.engine, at)
            verdicts[wanted] += 1
    assert min(verdicts.values()) > 150
